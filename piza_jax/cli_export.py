"""The command ``piza export``: the zoom compiled ahead of time, for machines without model code."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from piza_jax.errors import PizaError

if TYPE_CHECKING:
    import piza_jax

OpenGrounder = Callable[[argparse.Namespace, None], "piza_jax.Grounder"]


def add_command(commands: Any, add_options: Callable[[Any], None], open_grounder: OpenGrounder) -> None:
    """Add it to the subparsers of ``piza``.

    Args:
        commands: the subparsers.
        add_options: adds the options that say which model and how to zoom.
        open_grounder: opens what these options say.
    """
    export = commands.add_parser("export", help="the zoom compiled ahead of time, to use without model code")
    export.add_argument("target", help="new folder, for piza_jax.load_exported")
    add_options(export)
    export.add_argument("--batch", dest="batch_size", type=int, default=8, help="most photos in one run (default 8)")
    export.add_argument(
        "--platforms", default="cpu,cuda,tpu", help="of cpu, cuda, rocm and tpu (default: cpu,cuda,tpu)"
    )
    export.add_argument(
        "--photo_hw",
        action="append",
        default=[],
        help="height,width of the largest photos; may be given more than once (default: all sizes up to 16384,16384)",
    )
    export.set_defaults(run=lambda options, rest: _export(options, rest, open_grounder))


def _export(options: argparse.Namespace, rest: list[str], open_grounder: OpenGrounder) -> None:
    from piza_jax.data.pairs import canvas_side
    from piza_jax.export_zoom import checked_platforms, export_zoom
    from piza_jax.files import check_new

    if rest:
        raise PizaError(f"unknown argument {rest[0]!r}; see piza export --help")
    check_new(options.target)  # before the work, not after it
    platforms = checked_platforms([name.strip() for name in options.platforms.split(",")])
    photo_hw = [_size(text) for text in options.photo_hw]
    for side in (side for size in photo_hw for side in size):
        canvas_side(side)
    grounder = open_grounder(options, None)

    def report(name: str) -> None:
        print(f"lowering {name}", file=sys.stderr, flush=True)

    about = export_zoom(grounder, options.target, platforms=platforms, photo_hw=photo_hw, report=report)
    size = sum(one["bytes"] for one in about.files.values())
    if options.json:
        canvases = [one.photo_hw for one in about.zooms]
        print(json.dumps({"target": options.target, "bytes": size, "platforms": platforms, "photo_hw": canvases}))
        return
    print(f"{options.target}: {size / 1e6:.1f} MB for {', '.join(platforms)}, photos of up to")
    print("  " + ", ".join("{} x {}".format(*one.photo_hw) for one in about.zooms) + " (height x width)")


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(part) for part in text.split(","))
    except ValueError:
        height = width = 0
    if min(height, width) < 1:
        raise PizaError(f"--photo_hw={text} is no size; give height,width in pixels, such as 3072,4096")
    return height, width
