"""Plans of full-size training for TPU slices that are not here: appends a table to benchmarks/RESULTS.md.

`python -m benchmarks.tpu_plan v5e:2x2 v5e:16x16 v5p:2x2x1 v6e:2x2`, in an environment with jax[tpu].
"""

import argparse
import datetime
import importlib.metadata
import platform
import sys
import time
from pathlib import Path

from piza_jax.errors import PizaError
from piza_jax.plan.chips import devices_of
from piza_jax.plan.plan import Plan, make_plan
from piza_jax.training.config import load_config

RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = """| topology, chips | method | batch a chip | memory a chip, GiB | matrix TFLOPs a chip | all-reduce MiB | step, ms | limiter | examples/s a chip | 5 epochs of train_l, h | compiled in, s |
|---|---|---|---|---|---|---|---|---|---|---|"""  # noqa: E501


def row(name: str, method: str, each: int, plan: Plan, seconds: float) -> str:
    """One line of the table."""
    chips = len(devices_of(name))
    step, times = plan.step, plan.step_times
    usable = plan.chip.usable_bytes / 2**30 if plan.chip else float("nan")
    total = "?" if step.total is None else f"{step.total / 2**30:.2f}"
    memory = f"{total} of {usable:.2f}{'' if step.fits else ', does not fit'}"
    reduced = sum(one.bytes * one.times for one in step.collectives if one.kind == "all-reduce") / 2**20
    cells = [f"{name}, {chips}", method, str(each), memory, f"{step.flops / chips / 1e12:.2f}", f"{reduced:.1f}"]
    if times and plan.hours:
        rates = step.batch / chips / times.high, step.batch / chips / times.low
        cells += [f"{1e3 * times.low:.0f}..{1e3 * times.high:.0f}", times.limiter, f"{rates[0]:.1f}..{rates[1]:.1f}"]
        cells += [f"{plan.hours[0]:.2g}..{plan.hours[1]:.2g}"]
    else:
        cells += ["?"] * 4
    return "| " + " | ".join([*cells, f"{seconds:.0f}"]) + " |"


def main() -> int:
    """Compile, print and append."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topologies", nargs="+")
    parser.add_argument("--methods", default="piza_adapter_plus", help="comma-separated")
    parser.add_argument("--backbone", default="swin_t")
    parser.add_argument("--batch_per_chip", type=int, default=4)
    parser.add_argument("--dry", action="store_true", help="print only")
    options, overrides = parser.parse_known_args()
    rows = []
    for name in options.topologies:
        for method in options.methods.split(","):
            spec = f"configs/piza_sorec.py:tpu,train=train_l,backbone={options.backbone},peft={method}"
            began = time.perf_counter()
            try:
                batch = options.batch_per_chip * len(devices_of(name))
                plan = make_plan(load_config(spec, overrides), name, batch=batch, photo_hw=None)
            except PizaError as error:
                print(error, file=sys.stderr)
                return 2
            rows.append(
                row(name, f"{options.backbone} {method}", options.batch_per_chip, plan, time.perf_counter() - began)
            )
            print(rows[-1], flush=True)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib", "libtpu", "flax"))
    title = f"\n## Plans for TPU slices ({datetime.date.today().isoformat()})\n\n"
    command = f"    python -m benchmarks.tpu_plan {' '.join(sys.argv[1:])}\n\n"
    text = (
        f"{title}{command}{versions}, Python {platform.python_version()}; 1024 x 1024, bfloat16, layers recomputed.\n"
    )
    if not options.dry:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n{HEAD}\n" + "\n".join(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
