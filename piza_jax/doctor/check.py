"""A check and what it found; the report of many."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from piza_jax.errors import PizaError

Status = Literal["ok", "warning", "failed"]
_MARKS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        group: what it belongs to, such as "machine".
        name: what was looked at.
        status: "ok", "warning" (works, but look at it) or "failed".
        found: what is there.
        cure: what to do about it; "" where nothing is to be done.
        values: figures for programs, JSON-able.
    """

    group: str
    name: str
    status: Status
    found: str
    cure: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def attempt(group: str, name: str, run: Callable[[], Sequence[Check]]) -> list[Check]:
    """The checks that ``run`` gives; an error in it is a failed check, so that the others are still made."""
    try:
        return list(run())
    except PizaError as error:
        return [Check(group, name, "failed", str(error))]
    except Exception as error:  # a doctor that stops at a broken installation would be of no use
        first = (str(error).strip().splitlines() or [""])[0][:300]
        return [Check(group, name, "failed", f"{type(error).__name__}: {first}", "report it with the whole output")]


def text(checks: Sequence[Check]) -> str:
    """The report for a terminal."""
    lines, group = [], ""
    for check in checks:
        if check.group != group:
            lines += [*([""] if group else []), check.group]
            group = check.group
        lines.append(f"  {_MARKS[check.status]} {check.name}: {check.found}")
        if check.cure:
            lines.append(f"          -> {check.cure}")
    counts = {status: sum(check.status == status for check in checks) for status in _MARKS}
    lines += [
        "",
        f"{counts['ok']} ok, {counts['warning']} warning{'s' * (counts['warning'] != 1)}, {counts['failed']} failed",
    ]
    return "\n".join(lines)


def size(count: float) -> str:
    """Bytes as people say them, such as "1.5 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
