"""How the benchmarks that train end: an error by its message alone; a CPU as two devices; what can be kept, kept."""

import functools
from collections.abc import Callable, Sequence
from typing import NoReturn

from piza_jax import compile_cache, cpu, garbage
from piza_jax.errors import PizaError

Main = Callable[[Sequence[str] | None], None]


def command(run: Main) -> Callable[..., int]:
    """Make a function of the command line's words (None: of this process) one that returns an exit status."""

    @functools.wraps(run)
    def main(arguments: Sequence[str] | None = None) -> int:
        try:
            run(arguments)
        except PizaError as error:
            print(f"error: {error}")
            return 2
        return 0

    return main


def start(main: Callable[[], int]) -> NoReturn:
    """Set the process up as ``piza train`` does and end it with the status of ``main``."""
    cpu.keep_memory()
    cpu.split(2)
    garbage.collect_seldom()
    compile_cache.enable()
    raise SystemExit(main())
