"""The command ``piza demo``: a page to drop photos on."""

import argparse
from pathlib import Path
from typing import Any

from piza_jax import shipped
from piza_jax.errors import PizaError


def add_command(commands: Any, sources: str) -> None:
    """Add it to the subparsers of ``piza``; ``sources`` says what a checkpoint may be."""
    demo = commands.add_parser("demo", help="a page in the browser: drop a photo, type a sentence, watch the zoom")
    demo.add_argument(
        "--checkpoint", action="append", default=[], help=f"{sources} (default); may be given more than once"
    )
    demo.add_argument("--base", help="the model that an adapter is laid over, any source")
    demo.add_argument("--tokenizer", help="folder with tokenizer.json or vocab.txt, for sources that ship none")
    demo.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    demo.add_argument("--port", type=int, default=7860, help="of it (default 7860)")
    demo.add_argument("--max_megabytes", type=float, default=40.0, help="largest upload (default 40)")
    demo.add_argument("--max_megapixels", type=float, default=60.0, help="largest photo (default 60)")
    demo.add_argument("--num_examples", type=int, default=4, help="drawn streets to try (default 4, at most 4)")
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace, rest: list[str]) -> None:
    if rest:
        raise PizaError(f"unknown argument {rest[0]!r}; see piza demo --help")
    sources = options.checkpoint or [shipped.or_mini(None)]
    from piza_jax.demo.server import serve
    from piza_jax.demo.service import Limits
    from piza_jax.grounder import open_model

    models = {_name(source): open_model(source, base=options.base, tokenizer=options.tokenizer) for source in sources}
    limits = Limits(options.max_megabytes, options.max_megapixels)
    serve(models, options.host, options.port, limits, options.num_examples)


def _name(source: str) -> str:
    """What the page calls a model: the end of its path."""
    return Path(source).name or source
