"""Small bar charts as SVG for the report page, whose style sheet gives their colours."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from piza_jax.evaluation.details import RIGHT_IOU, WIDE_THRESHOLDS

_WIDTH, _HEIGHT = 380, 190
_LEFT, _TOP, _BOTTOM = 8, 22, 26  # room around the bars; labels stand in it
_WIDEST = 56  # columns
_ROW, _NAMES, _NUMBERS = 27, 132, 84  # of horizontal bars: height of one, room for names and for numbers


class Bar(NamedTuple):
    """One bar.

    Attributes:
        label: below or beside it; "" for none.
        number: how many, its length.
        kind: class of the style sheet that colours it: "good", "bad" or "plain".
        hint: what it stands for, shown when it is pointed at.
    """

    label: str
    number: int
    kind: str
    hint: str


def step_bars(steps: Sequence[int]) -> list[Bar]:
    """One bar for each number of steps from 1 up to the largest; 0, unknown, is left out."""
    counts = np.bincount(np.asarray(steps, np.int64), minlength=2)
    return [
        Bar(str(number), int(count), "plain", f"{number} step{'s' if number > 1 else ''}: {count}")
        for number, count in enumerate(counts[1:], 1)
    ]


def iou_bars(iou: Sequence[float]) -> list[Bar]:
    """Twenty bars of overlaps 0..1, each closed below as accuracies are; every fifth has its lower end as label."""
    places = np.searchsorted(WIDE_THRESHOLDS, np.asarray(iou, np.float32), side="right")
    bars = []
    for number, count in enumerate(np.bincount(places, minlength=len(WIDE_THRESHOLDS) + 1).tolist()):
        low, high = number / 20, (number + 1) / 20
        label = f"{low:.2f}" if number % 5 == 0 else ""
        kind = "good" if low >= RIGHT_IOU else "bad"
        bars.append(Bar(label, count, kind, f"IoU {low:.2f} to {high:.2f}: {count}"))
    return bars


def columns(bars: Sequence[Bar], title: str, at_edge: bool = False) -> str:
    """Bars that stand side by side, with their counts above them where there is room.

    Args:
        bars: from left to right, at least one.
        title: read out in place of the picture.
        at_edge: labels belong to the lower end of a bar instead of its middle.
    """
    step = (_WIDTH - 2 * _LEFT) / len(bars)
    wide = min(0.85 * step, _WIDEST)
    room, most = _HEIGHT - _TOP - _BOTTOM, max(max(bar.number for bar in bars), 1)
    floor = _HEIGHT - _BOTTOM
    parts = []
    for number, bar in enumerate(bars):
        left, tall = _LEFT + number * step, room * bar.number / most
        middle = left + step / 2
        if bar.number:
            parts.append(_rectangle(bar, middle - wide / 2, floor - tall, wide, tall))
        if bar.number and step > 7 * len(str(bar.number)):
            parts.append(_text(middle, floor - tall - 5, bar.number, "middle"))
        if bar.label:
            parts.append(_text(left if at_edge else middle, floor + 17, bar.label, "start" if at_edge else "middle"))
    parts.append(f'<line x1="{_LEFT}" y1="{floor}" x2="{_WIDTH - _LEFT}" y2="{floor}" class="axis"/>')
    return _svg(_WIDTH, _HEIGHT, title, parts)


def rows(bars: Sequence[Bar], title: str) -> str:
    """Bars that lie one below the other, named on the left, with counts and shares on the right."""
    total, most = sum(bar.number for bar in bars), max([bar.number for bar in bars] + [1])
    room = _WIDTH - _NAMES - _NUMBERS
    parts = []
    for number, bar in enumerate(bars):
        top, long = number * _ROW + 4, room * bar.number / most
        parts.append(_text(_NAMES - 8, top + 14, bar.label, "end"))
        if bar.number:
            parts.append(_rectangle(bar, _NAMES, top, long, _ROW - 8))
        share = f" ({100 * bar.number / total:.1f} %)" if total else ""
        parts.append(_text(_NAMES + long + 6, top + 14, f"{bar.number}{share}", "start"))
    return _svg(_WIDTH, len(bars) * _ROW + 4, title, parts)


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    name = escape(title)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{name}">{"".join(parts)}</svg>'


def _rectangle(bar: Bar, left: float, top: float, wide: float, tall: float) -> str:
    place = f'x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{max(tall, 1):.1f}"'
    return f'<rect {place} rx="2" class="{bar.kind}"><title>{escape(bar.hint)}</title></rect>'


def _text(x: float, y: float, text: object, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(str(text))}</text>'
