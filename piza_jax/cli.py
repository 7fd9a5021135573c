"""The ``piza`` command: train, ground, version."""

import argparse
import sys
from collections.abc import Sequence

import piza_jax
from piza_jax.errors import PizaError


def _train(options: argparse.Namespace, rest: list[str]) -> None:
    from piza_jax.training.config import load_config
    from piza_jax.training.task import train

    stray = [word for word in rest if not word.startswith("--config.")]
    if stray:
        raise PizaError(f"unknown argument {stray[0]!r}; settings are given as --config.key=value")
    train(load_config(options.config, rest), options.workdir)


def _ground(options: argparse.Namespace, rest: list[str]) -> None:
    from piza_jax.grounder import load

    if rest:
        raise PizaError(f"unknown argument {rest[0]!r}; see piza ground --help")
    found = load(options.checkpoint).ground(options.photo, options.expression)
    for number, step in enumerate(found.steps):
        print(f"step {number}: {step}")
    print(f"box (x0 y0 x1 y1 px): {' '.join(f'{value:.1f}' for value in found.box)}  score {found.score:.3f}")


def _version(options: argparse.Namespace, rest: list[str]) -> None:
    print(piza_jax.__version__)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="piza", description="Find tiny things in huge photos from a sentence.")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train, or go on where the work directory stops")
    train.add_argument("--config", required=True, help="FILE.py[:arg]; single settings as --config.key=value")
    train.add_argument("--workdir", required=True, help="checkpoints, metrics and the tokenizer go here")
    train.set_defaults(run=_train)
    ground = commands.add_parser("ground", help="zoom into a photo and print the box")
    ground.add_argument("photo")
    ground.add_argument("expression")
    ground.add_argument("--checkpoint", required=True, help="work directory of a training run")
    ground.set_defaults(run=_ground)
    commands.add_parser("version", help="print the version").set_defaults(run=_version)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; a mistake of the user is one line on stderr and exit code 2."""
    options, rest = _parser().parse_known_args(arguments)
    try:
        options.run(options, rest)
    except PizaError as error:
        print(f"piza: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
