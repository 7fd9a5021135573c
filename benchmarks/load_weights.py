"""Time and memory of loading a full-size detector from safetensors: ``python -m benchmarks.load_weights``.

Writes Swin-T with BERT-base in transformers' format, then loads it in processes of their own, whose peak memory is
read from the operating system; what the imports and the backend take is measured in the same process and subtracted.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_LOAD = """
import json, resource, sys, time
import jax, numpy as np
from piza_jax.convert.load import load_source
jax.device_put(np.zeros(1)).block_until_ready()
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, began = peak(), time.perf_counter()
loaded = load_source(sys.argv[1])
from flax import nnx
state = jax.block_until_ready(nnx.state(loaded.model, nnx.Param))
seconds = time.perf_counter() - began
count = sum(leaf.size for leaf in jax.tree.leaves(state))
print(json.dumps({"seconds": seconds, "bytes": peak() - before, "parameters": count}))
"""


def write_source(folder: Path) -> int:
    """A random Swin-T + BERT-base in transformers' format; its size in bytes."""
    from flax import nnx

    from piza_jax.convert.export import save_hugging_face
    from piza_jax.convert.load import Loaded
    from piza_jax.models.config import DetectorConfig
    from piza_jax.piza.detector import PizaConfig, PizaDetector
    from piza_jax.piza.plain import plain_config

    config = plain_config(PizaConfig(detector=DetectorConfig.preset("swin_t", denoising_queries=0)))
    save_hugging_face(Loaded(PizaDetector(config, rngs=nnx.Rngs(0)), None), folder)
    return (folder / "model.safetensors").stat().st_size


def main() -> None:
    """Print the figures as a row of benchmarks/RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "model"
        code = "import sys; from pathlib import Path; from benchmarks.load_weights import write_source; "
        size = int(
            subprocess.check_output([sys.executable, "-c", code + "print(write_source(Path(sys.argv[1])))", source])
        )
        rows = [
            json.loads(subprocess.check_output([sys.executable, "-c", _LOAD, str(source)])) for _ in range(options.runs)
        ]
    seconds = [row["seconds"] for row in rows]
    peaks = [row["bytes"] / size for row in rows]
    print("| parameters | file | load s, median (min..max) | peak memory / file, median (max) |")
    print("|---|---|---|---|")
    print(
        f"| {rows[0]['parameters']:,} | {size / 1e6:.0f} MB | {statistics.median(seconds):.2f} "
        f"({min(seconds):.2f}..{max(seconds):.2f}) | {statistics.median(peaks):.2f} ({max(peaks):.2f}) |"
    )


if __name__ == "__main__":
    main()
