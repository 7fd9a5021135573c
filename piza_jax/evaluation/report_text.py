"""A report's details as text: one table of measures by group, one of confidence intervals, one of failures."""

from collections.abc import Iterable, Mapping, Sequence

from piza_jax.evaluation.failures import FAILURES, STEPS_UNKNOWN
from piza_jax.evaluation.metrics import ALL
from piza_jax.evaluation.scoring import Score

# Column: (measure, factor, decimals).
_MEASURES: dict[str, tuple[str, float, int]] = {
    "mAcc %": ("mAcc", 100, 1),
    "Acc50 %": ("Acc50", 100, 1),
    "Acc75 %": ("Acc75", 100, 1),
    "wide mAcc %": ("wide_mAcc", 100, 1),
    "top1 %": ("top1", 100, 1),
    "top5 %": ("top5", 100, 1),
    "top10 %": ("top10", 100, 1),
    "centre px": ("centre_px", 1, 1),
    "widths": ("centre_widths", 1, 2),
    "steps": ("mean_steps", 1, 2),
    "stops %": ("stop_accuracy", 100, 1),
    "ECE %": ("calibration_error", 100, 1),
    "count": ("count", 1, 0),
}
_UNDER_NAMES = 2  # columns on the left that hold names


def details_text(scores: Mapping[str, Score]) -> str:
    """All tables, "-" where nothing was measured; measures that no split has are left out."""
    parts = [_measures(scores), _intervals(scores)]
    if any(one.failures is not None for one in scores.values()):
        parts.append(_failures(scores))
    return "\n\n".join(parts)


def measures_of(scores: Iterable[Score]) -> dict[str, tuple[str, float, int]]:
    """{title: (measure, factor, decimals)} of the measures that at least one of the scores has."""
    overall = [one.details[ALL][ALL] or {} for one in scores]
    return {title: how for title, how in _MEASURES.items() if any(values.get(how[0]) is not None for values in overall)}


def cell(value: float | int | None, factor: float, places: int) -> str:
    """A number with so many decimals, "-" if there is none."""
    return "-" if value is None else f"{factor * value:.{places}f}"


def _measures(scores: Mapping[str, Score]) -> str:
    shown = measures_of(scores.values())
    rows: list[tuple[str, ...]] = [("split", "group", *shown)]
    for split, one in scores.items():
        for groups in one.details.values():
            for name, values in groups.items():
                values = values or {"count": 0}
                rows.append(
                    (split, name, *(cell(values.get(measure), by, places) for measure, by, places in shown.values()))
                )
    return _aligned(rows)


def _intervals(scores: Mapping[str, Score]) -> str:
    rows: list[tuple[str, ...]] = [("split", "measure", "value %", "95% from", "to")]
    for split, one in scores.items():
        for name, (low, high) in one.intervals.items():
            value = (one.details[ALL][ALL] or {})[name]
            rows.append((split, name, *(cell(number, 100, 1) for number in (value, low, high))))
    return _aligned(rows)


def _failures(scores: Mapping[str, Score]) -> str:
    rows: list[tuple[str, ...]] = [("split", "wrong because", "count", "%")]
    for split, one in scores.items():
        total = sum((one.failures or {}).values()) + one.without_steps
        counts = {name: (one.failures or {}).get(name, 0) for name in FAILURES}
        if one.without_steps:
            counts[STEPS_UNKNOWN] = one.without_steps
        rows += [(split, name, str(n), cell(n / total if total else None, 100, 1)) for name, n in counts.items()]
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place < _UNDER_NAMES else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
