"""Plans of full size for TPU slices that are not here: appends a table to benchmarks/RESULTS.md.

`python -m benchmarks.tpu_plan v5e:2x2 v5e:16x16 v5p:2x2x1 v6e:2x2`, in an environment with jax[tpu], plans the training
step; with `--zoom` all five steps of a zoom into photos of 4096 x 6144.
"""

import argparse
import datetime
import importlib.metadata
import platform
import sys
import time
from pathlib import Path

from ml_collections import ConfigDict

from piza_jax.errors import PizaError
from piza_jax.piza.detector import config_from_dict
from piza_jax.plan.chips import Chip, devices_of, find_chip
from piza_jax.plan.plan import Plan, make_plan
from piza_jax.plan.programs import Measured, make_program, measure_zoom
from piza_jax.plan.roofline import estimate
from piza_jax.training import sharding
from piza_jax.training.config import load_config

RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = """| topology, chips | method | batch a chip | memory a chip, GiB | matrix TFLOPs a chip | all-reduce MiB | step, ms | limiter | examples/s a chip | 5 epochs of train_l, h | compiled in, s |
|---|---|---|---|---|---|---|---|---|---|---|"""  # noqa: E501

ZOOM_HEAD = """| topology, chips | method | photos a chip | memory a chip, GiB | matrix TFLOPs a chip | all steps, ms | limiter | photos/s a chip | compiled in, s |
|---|---|---|---|---|---|---|---|---|"""  # noqa: E501
PHOTO_HW = (4096, 6144)


def row(name: str, method: str, each: int, plan: Plan, seconds: float) -> str:
    """One line of the table."""
    chips = len(devices_of(name))
    step, times = plan.step, plan.step_times
    reduced = sum(one.bytes * one.times for one in step.collectives if one.kind == "all-reduce") / 2**20
    cells = [
        f"{name}, {chips}",
        method,
        str(each),
        _memory(step, plan.chip),
        f"{step.flops / chips / 1e12:.2f}",
        f"{reduced:.1f}",
    ]
    if times and plan.hours:
        rates = step.batch / chips / times.high, step.batch / chips / times.low
        cells += [f"{1e3 * times.low:.0f}..{1e3 * times.high:.0f}", times.limiter, f"{rates[0]:.1f}..{rates[1]:.1f}"]
        cells += [f"{plan.hours[0]:.2g}..{plan.hours[1]:.2g}"]
    else:
        cells += ["?"] * 4
    return "| " + " | ".join([*cells, f"{seconds:.0f}"]) + " |"


def _memory(measured: Measured, chip: Chip | None) -> str:
    """GiB of a chip that a program needs, and that it has."""
    usable = chip.usable_bytes / 2**30 if chip else float("nan")
    total = "?" if measured.total is None else f"{measured.total / 2**30:.2f}"
    return f"{total} of {usable:.2f}{'' if measured.fits else ', does not fit'}"


def zoom_row(name: str, method: str, each: int, config: ConfigDict) -> str:
    """Compile the zoom of ``each`` photos a chip; one line of its table.

    Raises:
        PizaError: as ``plan.make_plan``.
    """
    began = time.perf_counter()
    devices = devices_of(name)
    mesh = sharding.mesh_of(config.mesh, devices)
    chip = find_chip(devices[0])
    zoom = measure_zoom(make_program(config, mesh), each * sharding.batch_devices(mesh), PHOTO_HW)
    cells = [f"{name}, {len(devices)}", method, str(each), _memory(zoom, chip)]
    cells += [f"{zoom.flops / len(devices) / 1e12:.2f}"]
    if chip:
        detector = config_from_dict(config.model.to_dict()).detector
        steps = config.search.max_steps
        sizes = chip, len(devices), detector, tuple(config.data.canvas_hw)
        times = estimate(zoom, *sizes, training=False, views=steps)
        cells += [f"{1e3 * times.low:.0f}..{1e3 * times.high:.0f}", times.limiter]
        cells += [f"{each / times.high:.1f}..{each / times.low:.1f}"]
    else:
        cells += ["?"] * 3
    return "| " + " | ".join([*cells, f"{time.perf_counter() - began:.0f}"]) + " |"


def main() -> int:
    """Compile, print and append."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topologies", nargs="+")
    parser.add_argument("--methods", default="piza_adapter_plus", help="comma-separated")
    parser.add_argument("--backbone", default="swin_t")
    parser.add_argument("--batch_per_chip", type=int, default=4)
    parser.add_argument("--zoom", action="store_true", help="the zoom instead of the training step")
    parser.add_argument("--dry", action="store_true", help="print only")
    options, overrides = parser.parse_known_args()
    rows = []
    for name in options.topologies:
        for method in options.methods.split(","):
            spec = f"configs/piza_sorec.py:tpu,train=train_l,backbone={options.backbone},peft={method}"
            of = name, f"{options.backbone} {method}", options.batch_per_chip
            began = time.perf_counter()
            try:
                config = load_config(spec, overrides)
                if options.zoom:
                    rows.append(zoom_row(*of, config))
                else:
                    batch = options.batch_per_chip * len(devices_of(name))
                    plan = make_plan(config, name, batch=batch, photo_hw=None)
                    rows.append(row(*of, plan, time.perf_counter() - began))
            except PizaError as error:
                print(error, file=sys.stderr)
                return 2
            print(rows[-1], flush=True)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib", "libtpu", "flax"))
    title = f"\n## Plans for TPU slices ({datetime.date.today().isoformat()})\n\n"
    command = f"    python -m benchmarks.tpu_plan {' '.join(sys.argv[1:])}\n\n"
    text = (
        f"{title}{command}{versions}, Python {platform.python_version()}; 1024 x 1024, bfloat16, layers recomputed.\n"
    )
    if not options.dry:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n{ZOOM_HEAD if options.zoom else HEAD}\n" + "\n".join(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
