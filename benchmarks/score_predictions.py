"""Time `piza evaluate --predictions` on a file of 100,000 predictions that this script makes.

Run it by `python -m benchmarks.score_predictions`; it needs no model and no photos, only a folder for temporary files.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def make_files(folder: Path, count: int) -> tuple[Path, Path]:
    """Annotations of ``count`` records of SOREC's sizes, and JSON lines that answer them, half of them well."""
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, [5000, 3000], (count, 2)), rng.uniform(20, 50, (count, 2))
    words = rng.integers(8, 45, count)
    records = [
        {"image": "a.jpg", "bbox": [*map(float, corner[i]), *map(float, size[i])], "ref": "word " * words[i], "id": i}
        for i in range(count)
    ]
    (folder / "made.json").write_text(json.dumps(records))
    moved = corner + size * rng.normal(0, 0.3, (count, 2))
    boxes = np.concatenate([moved, moved + size * rng.uniform(0.8, 1.25, (count, 2))], axis=1)
    with open(folder / "made.jsonl", "w") as file:
        for i, score in enumerate(rng.random(count)):
            step = {"score": score, "progress": 0.0, "stop_probability": 0.5}
            whole, around = [0.0, 0.0, 6000.0, 4000.0], [*(corner[i] - 100), *(corner[i] + 150)]
            steps = [step | {"crop": whole, "box": around}, step | {"crop": around, "box": boxes[i].tolist()}]
            file.write(json.dumps({"id": i, "box": boxes[i].tolist(), "score": score, "steps": steps}) + "\n")
    return folder / "made.jsonl", folder / "made.json"


def main(count: int = 100_000) -> None:
    """Print the report, and how long the whole command took on one core."""
    with tempfile.TemporaryDirectory() as folder:
        predictions, annotations = make_files(Path(folder), count)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the command below inherits it
        command = [sys.executable, "-m", "piza_jax.cli", "evaluate", "--details"]
        start = time.perf_counter()
        subprocess.run([*command, "--predictions", predictions, "--annotations", annotations], check=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"{count} predictions scored in {time.perf_counter() - start:.1f} s on one core, of which it computed "
            f"{used.ru_utime + used.ru_stime:.1f} s; the start of Python is included"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
