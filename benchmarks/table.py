"""The rows of benchmarks/RESULTS.md: what was measured, on what, by which versions, and the command to do it again."""

import argparse
import contextlib
import datetime
import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.interleaved import Machine, Timing, figure
from piza_jax.errors import PizaError

RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = (
    "date",
    "device",
    "versions",
    "shapes",
    "dtype",
    "ours",
    "peer",
    "peer / ours",
    "difference",
    "first call, s: ours; peer",
    "peak memory: ours; peer",
    "command",
)
_PACKAGES = ("jax", "flax", "torch", "transformers", "pillow")


@dataclass(frozen=True)
class Result:
    """What a benchmark found.

    Attributes:
        title: heading of its table.
        shapes: what was computed.
        ours: our times.
        peer: the peer's.
        bar: the least ratio that is good enough; None: not set.
        difference: how far the two results are apart.
        unit: name of the unit of time.
        factor: such units in a second.
        memory: peak memory of both sides; None for what the device tells.
    """

    title: str
    shapes: str
    ours: Timing
    peer: Timing
    bar: float | None
    difference: str
    unit: str = "s"
    factor: float = 1.0
    memory: str | None = None


def report(result: Result, machine: Machine, options: argparse.Namespace, command: str) -> str:
    """Print the row of a result, and write it into RESULTS where the options say so; returns it."""
    ratio = f"{result.peer.median / result.ours.median:.2f}"
    cells = [
        datetime.date.today().isoformat(),
        machine.describe(),
        versions(),
        result.shapes,
        machine.dtype,
        result.ours.text(result.unit, result.factor),
        result.peer.text(result.unit, result.factor),
        ratio if result.bar is None else f"{ratio} (bar {result.bar})",
        result.difference,
        f"{figure(result.ours.first)}; {figure(result.peer.first)}",
        result.memory or machine.peaks(),
        f"`{command}`",
    ]
    return finish(result.title, HEAD, cells, options.append)


def finish(title: str, head: Sequence[str], cells: Sequence[str], append: bool) -> str:
    """Print a row under its head, and append it to the table of that title in RESULTS; returns it."""
    row = _row(cells)
    print(f"\n## {title}\n\n{_row(head)}\n{_rule(head)}\n{row}", flush=True)
    if append:
        append_row(RESULTS, title, head, row)
    return row


def append_row(path: Path, title: str, head: Sequence[str], row: str) -> None:
    """Put a row at the end of the first table under a heading of a Markdown file, which gets both where it has none.

    Raises:
        PizaError: the table there has another head.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    heading = f"## {title}"
    if heading not in lines:
        lines += [*([""] if lines else []), heading, ""]
    start = lines.index(heading) + 1
    end = next((i for i in range(start, len(lines)) if lines[i].startswith("#")), len(lines))
    table = next((i for i in range(start, end) if lines[i].startswith("|")), None)
    if table is None:
        lines[end:end] = [_row(head), _rule(head), row]
    elif lines[table] != _row(head):
        raise PizaError(f"the table under {heading!r} in {path} has another head; rename that heading")
    else:
        after = next((i for i in range(table, end) if not lines[i].startswith("|")), end)
        lines.insert(after, row)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def versions() -> str:
    """Packages and Python."""
    found = []
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join([*found, f"Python {platform.python_version()}"])


def command(name: str, arguments: Sequence[str] | None) -> str:
    """What to type to run a benchmark again."""
    return " ".join(["python -m", f"benchmarks.{name}", shlex.join(sys.argv[1:] if arguments is None else arguments)])


def program(main: Callable[[], Any]) -> int:
    """Run a benchmark as a program: exit code 2 and one line where it cannot be run or its sides disagree."""
    try:
        main()
    except PizaError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    return 0


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _rule(head: Sequence[str]) -> str:
    return "|" + "---|" * len(head)
