"""How each small kind looks; every drawing touches all four sides of its box."""

from collections.abc import Callable

from piza_jax.data.world.kinds import COLOURS, INK, Colour
from piza_jax.data.world.pen import Pen, contrast

_SKIN: Colour = (226, 178, 140)
_TROUSERS: Colour = (62, 68, 96)
_BAG: Colour = (122, 72, 34)
_METAL: Colour = (112, 114, 120)
_WHITE: Colour = (246, 246, 246)


def draw_small(pen: Pen, kind: str, colour: str, detail: str | None) -> None:
    """Draw a small thing over the whole patch of a pen.

    Args:
        pen: where to draw.
        kind: a name in kinds.SMALL.
        colour: a name in kinds.COLOURS.
        detail: one of the kind's details, None where it has none.
    """
    _DRAWINGS[kind](pen, COLOURS[colour], detail)


def _darker(colour: Colour) -> Colour:
    """A shade of a colour for seams; lighter where the colour is nearly black."""
    return (96, 96, 102) if max(colour) < 60 else (colour[0] * 3 // 4, colour[1] * 3 // 4, colour[2] * 3 // 4)


def _cone(pen: Pen, colour: Colour, detail: str | None) -> None:
    pen.rect(0, 0.86, 1, 1, INK)
    pen.body("poly", [(0.4, 0), (0.6, 0), (0.88, 0.87), (0.12, 0.87)], colour, detail)


def _barrel(pen: Pen, colour: Colour, detail: str | None) -> None:
    pen.oval(0, 0.8, 1, 1, colour, outline=True)
    pen.body("rect", [(0, 0.1), (1, 0.92)], colour, detail)
    pen.oval(0, 0, 1, 0.22, _darker(colour), outline=True)


def _bin(pen: Pen, colour: Colour, detail: str | None) -> None:
    pen.body("poly", [(0.08, 0.16), (0.92, 0.16), (0.8, 1), (0.2, 1)], colour, detail)
    pen.rect(0.36, 0, 0.64, 0.1, INK)
    pen.rect(0, 0.07, 1, 0.2, _METAL, outline=True)


def _hydrant(pen: Pen, colour: Colour, detail: str | None) -> None:
    pen.rect(0, 0.4, 1, 0.6, colour, outline=True)
    pen.oval(0.2, 0, 0.8, 0.44, colour, outline=True)
    pen.body("rect", [(0.22, 0.22), (0.78, 0.94)], colour, detail)
    pen.rect(0.08, 0.9, 0.92, 1, INK)


def _crate(pen: Pen, colour: Colour, detail: str | None) -> None:
    pen.body("rect", [(0, 0), (1, 1)], colour, detail)
    if detail == "plain":
        for top in (0.31, 0.65):
            pen.rect(0.03, top, 0.97, top + 0.04, _darker(colour))


def _person(pen: Pen, colour: Colour, detail: str | None) -> None:
    pen.rect(0.2, 0.6, 0.46, 1, _TROUSERS)
    pen.rect(0.54, 0.6, 0.8, 1, _TROUSERS)
    pen.oval(0.26, 0, 0.74, 0.23, _SKIN, outline=True)
    pen.body("poly", [(0.15, 0.22), (0.85, 0.22), (1, 0.56), (0.86, 0.66), (0.14, 0.66), (0, 0.56)], colour, None)
    if detail == "hatted":
        pen.rect(0.08, 0.06, 0.92, 0.11, INK)
        pen.rect(0.24, 0, 0.76, 0.08, INK)
    elif detail == "carrying":
        pen.rect(0.58, 0.5, 1, 0.76, _BAG, outline=True)
        pen.stroke([(0.64, 0.5), (0.79, 0.38), (0.94, 0.5)], _BAG, 0.03)


def _sign(pen: Pen, colour: Colour, detail: str | None) -> None:
    inner = contrast(colour)
    if detail == "round":
        pen.oval(0, 0, 1, 1, colour, outline=True)
        pen.rect(0.24, 0.42, 0.76, 0.58, inner)
    elif detail == "square":
        pen.rect(0, 0, 1, 1, colour, outline=True)
        pen.rect(0.42, 0.2, 0.58, 0.8, inner)
    else:
        pen.poly([(0.5, 0), (1, 1), (0, 1)], colour, outline=True)
        pen.rect(0.44, 0.42, 0.56, 0.82, inner)


def _light(pen: Pen, colour: Colour, detail: str | None) -> None:
    del detail
    pen.rect(0, 0, 1, 1, INK)
    for place, name in enumerate(("red", "yellow", "green")):
        lit = COLOURS[name] == colour
        pen.oval(0.16, 0.05 + 0.31 * place, 0.84, 0.33 + 0.31 * place, colour if lit else (74, 74, 78))


def _flag(pen: Pen, colour: Colour, detail: str | None) -> None:
    pen.rect(0, 0, 0.1, 1, INK)
    pen.body("rect", [(0.08, 0.02), (1, 0.76)], colour, detail)


def _suitcase(pen: Pen, colour: Colour, detail: str | None) -> None:
    pen.stroke([(0.34, 0.24), (0.34, 0.04), (0.66, 0.04), (0.66, 0.24)], INK, 0.08)
    pen.rect(0.32, 0, 0.68, 0.08, INK)
    pen.body("rect", [(0, 0.2), (1, 1)], colour, detail)


def _mailbox(pen: Pen, colour: Colour, detail: str | None) -> None:
    pen.rect(0.4, 0.7, 0.6, 1, INK)
    pen.oval(0, 0, 1, 0.5, colour, outline=True)
    pen.body("rect", [(0, 0.24), (1, 0.76)], colour, detail)
    pen.rect(0.2, 0.14, 0.8, 0.2, INK)


def _chair(pen: Pen, colour: Colour, detail: str | None) -> None:
    del detail
    pen.rect(0, 0, 0.18, 1, colour, outline=True)
    pen.rect(0.8, 0.56, 1, 1, colour, outline=True)
    pen.rect(0.06, 0.5, 1, 0.66, colour, outline=True)


def _parasol(pen: Pen, colour: Colour, detail: str | None) -> None:
    pen.rect(0.46, 0.3, 0.54, 1, INK)
    pen.body("poly", [(0.5, 0), (0.82, 0.16), (1, 0.5), (0, 0.5), (0.18, 0.16)], colour, detail)
    pen.rect(0.28, 0.93, 0.72, 1, INK)


def _bicycle(pen: Pen, colour: Colour, detail: str | None) -> None:
    del detail
    for left in (0, 0.58):
        pen.ring(left, 0.35, left + 0.42, 1, INK, 0.09)
    pen.stroke([(0.21, 0.66), (0.34, 0.24), (0.72, 0.24), (0.5, 0.68), (0.21, 0.66)], colour, 0.12)
    pen.stroke([(0.79, 0.66), (0.7, 0.12)], colour, 0.12)
    pen.rect(0.24, 0.1, 0.44, 0.2, INK)
    pen.rect(0.6, 0, 0.8, 0.12, INK)


def _clock(pen: Pen, colour: Colour, detail: str | None) -> None:
    (pen.oval if detail == "round" else pen.rect)(0, 0, 1, 1, colour, outline=True)
    (pen.oval if detail == "round" else pen.rect)(0.2, 0.2, 0.8, 0.8, _WHITE)
    pen.rect(0.46, 0.26, 0.54, 0.54, INK)
    pen.rect(0.46, 0.48, 0.72, 0.56, INK)


def _lantern(pen: Pen, colour: Colour, detail: str | None) -> None:
    pen.body("rect", [(0.06, 0.2), (0.94, 0.9)], colour, detail)
    pen.poly([(0.35, 0), (0.65, 0), (1, 0.24), (0, 0.24)], INK)
    pen.rect(0.1, 0.88, 0.9, 1, INK)


_DRAWINGS: dict[str, Callable[[Pen, Colour, str | None], None]] = {
    "cone": _cone,
    "barrel": _barrel,
    "bin": _bin,
    "hydrant": _hydrant,
    "crate": _crate,
    "person": _person,
    "sign": _sign,
    "light": _light,
    "flag": _flag,
    "suitcase": _suitcase,
    "mailbox": _mailbox,
    "chair": _chair,
    "parasol": _parasol,
    "bicycle": _bicycle,
    "clock": _clock,
    "lantern": _lantern,
}
