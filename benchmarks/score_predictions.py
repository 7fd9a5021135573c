"""Time `piza evaluate --predictions` on a file of 100,000 predictions that this script makes.

Run it by `python -m benchmarks.score_predictions`; it needs no model and no photos, only a folder for temporary files.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def make_files(folder: Path, count: int, zooms: bool) -> tuple[Path, Path]:
    """JSON lines that answer ``count`` records, with id, box and score or with whole zooms too, and the annotations."""
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
            answer = {"id": i, "box": boxes[i].tolist(), "score": score}
            step = {"score": score, "progress": 0.0, "stop_probability": 0.5}
            whole, around = [0.0, 0.0, 6000.0, 4000.0], [*(corner[i] - 100), *(corner[i] + 150)]
            steps = [step | {"crop": whole, "box": around}, step | {"crop": around, "box": boxes[i].tolist()}]
            file.write(json.dumps(answer | ({"steps": steps} if zooms else {})) + "\n")
    return folder / "made.jsonl", folder / "made.json"


def main() -> None:
    """Print the reports, and how long each whole command took on one core."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="predictions")
    count = parser.parse_args().count
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the commands below inherit it
    for zooms in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            predictions, annotations = make_files(Path(folder), count, zooms)
            command = [sys.executable, "-m", "piza_jax.cli", "evaluate", "--details"]
            start, before = time.perf_counter(), _cpu_seconds()
            subprocess.run([*command, "--predictions", predictions, "--annotations", annotations], check=True)
            print(
                f"{count} predictions {'with' if zooms else 'without'} zooms scored in "
                f"{time.perf_counter() - start:.1f} s on one core, {_cpu_seconds() - before:.1f} s of it at work; "
                "the start of Python is included"
            )


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
