"""What kept memory and one device for each core give a training on a CPU: ``python -m benchmarks.cpu_training``.

piza-mini's relations stage as the command line trains it, three ways in turn: with malloc's defaults on one device,
with memory that is kept, and with two devices besides. Each run compiles and leaves its first images out of the rate.
"""

import datetime
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import interleaved, table
from piza_jax.errors import PizaError
from piza_jax.training.writer import read_metrics

TITLE = "Training on a CPU: memory that is kept, a device for each core"
HEAD = ("date", "device", "versions", "shapes", "malloc's defaults, 1 device", "kept, 1", "kept, 2", "gain", "command")
PIZA = (sys.executable, "-m", "piza_jax.cli")
DEFAULTS = {"MALLOC_ARENA_TEST": "8"}  # its own default, and so nothing else is chosen for it
WAYS: tuple[tuple[dict[str, str], int], ...] = ((DEFAULTS, 1), ({}, 1), ({}, 2))
STEPS, EVERY = 24, 4
CONFIG, SMALL = "configs/mini.py:peft=none,stage=relations", "configs/scenes.py:smoke"


def main(arguments: Sequence[str] | None = None, piza: Sequence[str] = PIZA) -> str:
    """Run, print and append; returns the row. ``piza`` is the command line to measure."""
    options = interleaved.parser(__doc__, runs=2, dtypes=("as trained",)).parse_args(arguments)
    config = SMALL if options.small else CONFIG
    rates: list[list[float]] = [[] for _ in WAYS]
    with interleaved.session(options) as machine, tempfile.TemporaryDirectory() as folder:
        for run in range(options.runs):
            for number, (environment, devices) in enumerate(WAYS):
                place = Path(folder) / f"{run}_{number}"
                rates[number].append(images_per_second(piza, config, place, environment, devices))
                print(f"{HEAD[4 + number]}: {rates[number][-1]:.2f} images/s", flush=True)
    cells = [datetime.date.today().isoformat(), machine.describe(), table.versions(), f"`{config}`"]
    cells += [f"{statistics.median(one):.2f} images/s ({min(one):.2f}..{max(one):.2f})" for one in rates]
    gain = statistics.median(rates[-1]) / statistics.median(rates[0])
    cells += [f"{gain:.2f}", f"`{table.command('cpu_training', arguments)}`"]
    return table.finish(TITLE, HEAD, cells, options.append)


def images_per_second(
    piza: Sequence[str], config: str, place: Path, environment: dict[str, str], devices: int
) -> float:
    """Median rate of a short training, but for its first images.

    Raises:
        PizaError: the training failed.
    """
    pictures = place.parent / "pictures"  # drawn by the first run
    words = {"train.num_steps": STEPS, "train.log_every": EVERY, "mesh.cpu_devices": devices, "evaluation.every": 0}
    words |= {"data.cache_dir": pictures, "data.num_photos": 32, "checkpoint.every": 1000}
    settings = [f"--config.{name}={value}" for name, value in words.items()]
    chosen = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    chosen |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", **environment}
    done = subprocess.run(
        [*piza, "train", f"--config={config}", f"--workdir={place}", *settings],
        env=chosen,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise PizaError(f"the training failed: {done.stderr.strip()[-500:]}")
    found = [row["images_per_second"] for row in read_metrics(place) if "images_per_second" in row]
    return statistics.median(found[len(found) // 2 :])


if __name__ == "__main__":
    sys.exit(table.program(main))
