"""The figure of accuracy against cost, as SVG that stands alone: one panel a measure, over time on a log axis."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _PANEL = 860, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 24, 64, 46  # room around the panels; _TOP once, the others of each
_RADIUS, _LETTER, _LINE = 5, 6.9, 13  # of a mark; width of a letter and height of a line of labels
# Okabe and Ito's colours, apart for every kind of sight; those of ways without a family come last.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_ALONE = "#7a7f85"
_STYLE = (
    ".paper{fill:#fff}.ink{fill:#1d2228}.faint{fill:#5c6670}.grid{stroke:#d9dde1}text{font:12px system-ui,sans-serif}"
    ".title{font-size:15px;font-weight:600}.label{paint-order:stroke;stroke:#fff;stroke-width:3px}"
    "@media(prefers-color-scheme:dark){.paper{fill:#14171a}.ink{fill:#e7eaed}.faint{fill:#9da7b1}.grid{stroke:#353b42}"
    ".label{stroke:#14171a}}"
)

Rectangle = tuple[float, float, float, float]


class Mark(NamedTuple):
    """One point of a panel.

    Attributes:
        label: written beside it.
        family: marks of one family have one colour and are joined in their order; "": stands alone.
        ms: where it stands from left to right, above 0.
        share: how high, 0..1.
        low: lower end of its interval.
        high: upper end of its interval.
    """

    label: str
    family: str
    ms: float
    share: float
    low: float
    high: float


def chart(panels: Mapping[str, Sequence[Mark]], subtitle: str) -> str:
    """The figure.

    Args:
        panels: marks by the name of the measure, at least one of each.
        subtitle: what was measured and where.
    """
    height = _TOP + _PANEL * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>Accuracy against time</title><style>{_STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{height}"/>',
        _text(_LEFT, 26, "Accuracy against time for an expression", "title ink"),
        _text(_LEFT, 46, subtitle, "faint"),
    ]
    for number, (name, marks) in enumerate(panels.items()):
        parts += _panel(name, marks, _TOP + number * _PANEL)
    return "".join([*parts, "</svg>\n"])


def time_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, the last one up to ``low`` to the first one from ``high`` on; both above 0."""
    all_ticks = [
        lead * 10.0**power
        for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
        for lead in (1, 2, 5)
    ]
    first = max(i for i, tick in enumerate(all_ticks) if tick <= low * 1.000001)
    last = min(i for i, tick in enumerate(all_ticks) if tick >= high * 0.999999)
    return all_ticks[first : max(last, first + 1) + 1]


def _panel(name: str, marks: Sequence[Mark], top: float) -> list[str]:
    ticks = time_ticks(min(mark.ms for mark in marks), max(mark.ms for mark in marks))
    bottom, right = top + _PANEL - _BOTTOM, _WIDTH - _RIGHT
    most = min(math.ceil(10 * max(mark.high for mark in marks) + 0.2) / 10, 1.0)

    def x(ms: float) -> float:
        return _LEFT + (right - _LEFT) * math.log(ms / ticks[0]) / math.log(ticks[-1] / ticks[0])

    def y(share: float) -> float:
        return bottom - (bottom - top - 12) * share / most

    parts = []
    for step in range(round(10 * most) + 1):
        if most <= 0.5 or step % 2 == 0:
            parts.append(_line(_LEFT, y(step / 10), right, y(step / 10), 'class="grid"'))
            parts.append(_text(_LEFT - 8, y(step / 10) + 4, f"{10 * step}", "faint", "end"))
    for tick in ticks:
        parts.append(_line(x(tick), y(most), x(tick), bottom, 'class="grid"'))
        parts.append(_text(x(tick), bottom + 17, f"{tick:g}", "faint", "middle"))
    parts.append(_text(right, bottom + 34, "ms for an expression", "faint", "end"))
    parts.append(_text(_LEFT, top + 2, f"{name} %, with 95% intervals", "ink"))
    colours = colours_of(marks)
    for family, colour in colours.items():
        points = " ".join(f"{x(mark.ms):.1f},{y(mark.share):.1f}" for mark in marks if mark.family == family)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    places = [(x(mark.ms), y(mark.share)) for mark in marks]
    for mark, (left, high) in zip(marks, places, strict=True):
        colour = colours.get(mark.family, _ALONE)
        parts.append(_line(left, y(mark.low), left, y(mark.high), f'stroke="{colour}" stroke-opacity=".45"'))
        hint = escape(f"{mark.label}: {100 * mark.share:.1f} %, {mark.ms:.1f} ms")
        dot = f'<circle cx="{left:.1f}" cy="{high:.1f}" r="{_RADIUS}" fill="{colour}">'
        parts.append(f"{dot}<title>{hint}</title></circle>")
    room = (_LEFT, top + 4, right + _RIGHT - 4, bottom)
    labels = place_labels([mark.label for mark in marks], places, room)
    for mark, (left, base) in zip(marks, labels, strict=True):
        parts.append(_text(left, base, mark.label, "label ink"))
    return parts


def colours_of(marks: Sequence[Mark]) -> dict[str, str]:
    """Colour of each family."""
    families = list(dict.fromkeys(mark.family for mark in marks if mark.family))
    return {family: _COLOURS[i % len(_COLOURS)] for i, family in enumerate(families)}


def place_labels(
    labels: Sequence[str], places: Sequence[tuple[float, float]], room: Rectangle
) -> list[tuple[float, float]]:
    """Left end and base line of each label: beside its place, where it covers least of other labels and places.

    Args:
        labels: texts.
        places: their marks, x and y.
        room: left, top, right and bottom that labels should not leave.
    """
    dots = [(a - _RADIUS, b - _RADIUS, a + _RADIUS, b + _RADIUS) for a, b in places]
    taken: list[Rectangle] = []
    found = []
    for number, (text, (a, b)) in enumerate(zip(labels, places, strict=True)):
        wide, near = _LETTER * len(text), _RADIUS + 4
        options = [(a + near, b + 4), (a - near - wide, b + 4)]
        for apart in (0, 1, 2, 3):
            shift = near + apart * _LINE
            options += [(a - wide / 2, b - shift), (a - wide / 2, b + shift + 9)]
            options += [(a + near, b - shift), (a + near, b + shift + 9)]
            options += [(a - near - wide, b - shift), (a - near - wide, b + shift + 9)]
        others = [*taken, *dots[:number], *dots[number + 1 :]]

        def cost(option: tuple[float, float], wide: float = wide, others: list[Rectangle] = others) -> float:
            box = _text_box(option, wide)
            outside = wide * _LINE - _shared(box, room)
            return sum(_shared(box, other) for other in others) + 10 * outside

        best = min(options, key=cost)  # the first of equals
        taken.append(_text_box(best, wide))
        found.append(best)
    return found


def _text_box(place: tuple[float, float], wide: float) -> Rectangle:
    return place[0], place[1] - _LINE + 3, place[0] + wide, place[1] + 3


def _shared(one: Rectangle, other: Rectangle) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)


def _line(x0: float, y0: float, x1: float, y1: float, more: str) -> str:
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" {more}/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
