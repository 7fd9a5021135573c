"""Time from the start of ``piza ground`` to its box: ``python -m benchmarks.start_up --checkpoint=MODEL``.

Cold, with an empty folder for compiled programs, and warm, with what the cold run left there; in turn. One run that is
not counted comes before, so that the files of Python and of the model are in memory.
"""

import argparse
import datetime
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from benchmarks import interleaved, peers, table
from piza_jax.compile_cache import VARIABLE
from piza_jax.errors import PizaError

TITLE = "Start of piza ground to a box"
BARS = {"cold": 12.0, "warm": 5.0}
HEAD = ("date", "device", "versions", "model, photo", "cold", "warm", "command")
PIZA = (sys.executable, "-m", "piza_jax.cli")


def main(arguments: Sequence[str] | None = None, piza: Sequence[str] = PIZA) -> str:
    """Run, print and append; returns the row. ``piza`` is the command line to measure."""
    parser = interleaved.parser(__doc__, runs=3, dtypes=("as trained",))
    parser.add_argument("--checkpoint", help="any source that piza ground takes (a tiny one of our own with --small)")
    parser.add_argument("--photo", help="in place of a drawn one of 3000 x 4000")
    parser.add_argument("--expression", default="the blue car")
    parser.add_argument("--max_steps", type=int, help="of the zoom (as trained)")
    options = parser.parse_args(arguments)
    with interleaved.session(options) as machine, tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = options.checkpoint or _tiny(options, folder / "model")
        photo = Path(options.photo) if options.photo else folder / "photo.jpg"
        if not options.photo:
            Image.fromarray(peers.photo(*((240, 320) if options.small else (3000, 4000)))).save(photo, quality=90)
        words = [*piza, "ground", str(photo), options.expression, "--checkpoint", str(model)]
        words += ["--max_steps", str(options.max_steps)] if options.max_steps else []
        seconds: dict[str, list[float]] = {name: [] for name in BARS}
        environment = {**os.environ, **({"JAX_PLATFORMS": "cpu"} if machine.kind == "cpu" else {})}
        for run in range(options.runs + 1):
            environment[VARIABLE] = str(folder / f"compiled{run}")
            for times in seconds.values():
                taken = to_box(words, environment)
                if run:
                    times.append(taken)
                elif times is seconds["cold"]:
                    print(f"first of all, not counted: {taken:.1f} s", flush=True)
        height, width = Image.open(photo).size[::-1]
    cells = [datetime.date.today().isoformat(), machine.describe(), table.versions()]
    cells += [f"{Path(model).name if options.checkpoint else 'tiny'}, {height} x {width}"]
    for name, times in seconds.items():
        cells.append(f"{interleaved.Timing(times[0], tuple(times)).text()} (bar {BARS[name]:g})")
        print(f"{name}: median {statistics.median(times):.2f} s")
    cells.append(f"`{table.command('start_up', arguments)}`")
    return table.finish(TITLE, HEAD, cells, options.append)


def to_box(words: Sequence[str], environment: dict[str, str]) -> float:
    """Seconds from the start of a process to the line with its box.

    Raises:
        PizaError: it ended without one.
    """
    began = time.perf_counter()
    lines = []
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(words, env=environment, **pipes) as process:
        for line in process.stdout or ():
            if line.startswith("box ("):
                taken = time.perf_counter() - began
                process.communicate()
                return taken
            lines.append(line)
    raise PizaError(f"piza ground gave no box: {''.join(lines).strip()[-500:]}")


def _tiny(options: argparse.Namespace, folder: Path) -> Path:
    if not options.small:
        raise PizaError("say which model: --checkpoint=MODEL")
    from flax import nnx

    from piza_jax.convert.export import save_whole
    from piza_jax.convert.load import Loaded
    from piza_jax.data.tokenize import Tokenizer
    from piza_jax.models.config import DetectorConfig
    from piza_jax.piza.detector import PizaConfig, PizaDetector

    tokenizer = Tokenizer.train([options.expression], 200)
    detector = DetectorConfig.preset("tiny", delimiter_ids=tokenizer.delimiter_ids, denoising_queries=0)
    model = PizaDetector(PizaConfig(detector=detector, adapter_dim=32), rngs=nnx.Rngs(0))
    save_whole(Loaded(model, tokenizer, 64, method="full", zoom={"canvas_hw": (128, 128)}), folder)
    return folder


if __name__ == "__main__":
    sys.exit(table.program(main))
