"""The command ``piza plan``: what a run needs on hardware that is not here."""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from piza_jax.errors import PizaError


def add_command(commands: Any) -> None:
    """Add it to the subparsers of ``piza``."""
    plan = commands.add_parser("plan", help="memory, work, traffic and time of a run, compiled ahead of time")
    plan.add_argument("--config", required=True, help="FILE.py[:arg]; single settings as --config.key=value")
    plan.add_argument("--topology", help="TPU to compile for, such as v5e:16x16 (default: the devices here)")
    plan.add_argument("--batch", type=int, help="samples of a step over all devices (default: train.batch_size)")
    plan.add_argument("--batch_per_device", type=int, help="the same for one device of the data and fsdp axes")
    plan.add_argument("--mesh", help="sizes of data,fsdp,tensor, one of them -1, such as -1,4,1")
    plan.add_argument("--photo", default="4096x6144", help="height x width of the photos that are zoomed into")
    plan.add_argument("--no_zoom", action="store_true", help="plan the training step alone")
    plan.add_argument("--search", action="store_true", help="find the largest batch that fits; compiles a few times")
    plan.add_argument("--output", metavar="FILE.json", help="save every number here (default: plan.json)")
    plan.set_defaults(run=_plan)


def _plan(options: argparse.Namespace, rest: list[str]) -> int:
    from piza_jax.plan.chips import devices_of
    from piza_jax.plan.plan import make_plan
    from piza_jax.plan.text import text
    from piza_jax.training import sharding
    from piza_jax.training.config import load_config

    stray = [word for word in rest if not word.startswith("--config.")]
    if stray:
        raise PizaError(f"unknown argument {stray[0]!r}; settings are given as --config.key=value")
    overrides = [*rest, *_mesh_overrides(options.mesh)]
    config = load_config(options.config, overrides)
    batch = options.batch
    if options.batch_per_device is not None:
        if batch is not None:
            raise PizaError("give either --batch or --batch_per_device")
        mesh = sharding.mesh_of(config.mesh, devices_of(options.topology))
        batch = options.batch_per_device * sharding.batch_devices(mesh)
    found = make_plan(
        config,
        options.topology,
        batch=batch,
        photo_hw=None if options.no_zoom else _photo_hw(options.photo),
        search=options.search,
        say=lambda line: print(line, file=sys.stderr),
    )
    print(text(found))
    output = Path(options.output or "plan.json")
    try:
        output.write_text(json.dumps(found.to_dict(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise PizaError(f"cannot write {output}: {error}") from error
    print(f"\n{output}: all numbers")
    return int(not found.step.fits)


def _mesh_overrides(mesh: str | None) -> list[str]:
    if mesh is None:
        return []
    sizes = mesh.strip("()").split(",")
    if len(sizes) != 3 or not all(re.fullmatch(r"\s*-?\d+\s*", size) for size in sizes):
        raise PizaError(f"--mesh={mesh} is not of the form data,fsdp,tensor, such as -1,1,1")
    return [f"mesh.{name}={size.strip()}" for name, size in zip(("data", "fsdp", "tensor"), sizes, strict=True)]


def _photo_hw(word: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", word)
    if found is None:
        raise PizaError(f"--photo={word} is not of the form HEIGHTxWIDTH, such as 4096x6144")
    return int(found.group(1)), int(found.group(2))
