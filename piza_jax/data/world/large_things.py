"""How vehicles, kiosks, buildings and poles look; every drawing touches all four sides of its box."""

from piza_jax.data.world.kinds import COLOURS, INK, WALLS, Colour
from piza_jax.data.world.pen import Pen

_GLASS: Colour = (176, 206, 222)
_DARK_GLASS: Colour = (84, 102, 122)
_RIM: Colour = (188, 190, 196)
_LAMP: Colour = (232, 52, 40)
_PLATE: Colour = (236, 236, 228)
_STEEL: Colour = (86, 90, 98)


def draw_large(
    pen: Pen, kind: str, colour: str, view: str, band: tuple[float, float] = (0.0, 0.0), style: int = 0
) -> None:
    """Draw a large thing over the whole patch of a pen.

    Args:
        pen: where to draw.
        kind: a name in kinds.LARGE_KINDS.
        colour: a name in kinds.WALLS for buildings, "" for poles, else one in kinds.COLOURS.
        view: "side" or "rear" for vehicles.
        band: top and bottom of the part of a building's wall that has no windows, 0..1 of its height.
        style: any number; it picks windows, doors and the like.
    """
    if kind == "pole":
        _pole(pen)
    elif kind == "kiosk":
        _kiosk(pen, COLOURS[colour])
    elif kind in ("house", "tower"):
        _building(pen, kind, WALLS[colour], band, style)
    elif view == "rear":
        _rear(pen, kind, COLOURS[colour])
    else:
        {"car": _car, "van": _van, "bus": _bus, "truck": _truck}[kind](pen, COLOURS[colour])


def shade(colour: Colour, percent: int) -> Colour:
    """A colour with all its parts scaled."""
    red, green, blue = (min(part * percent // 100, 255) for part in colour)
    return red, green, blue


def _wheels(pen: Pen, centres: tuple[float, ...], radius: float) -> None:
    """Wheels that stand on the box's lower side; the radius counts in its height."""
    half = radius * pen.patch.height / pen.patch.width
    for centre in centres:
        pen.oval(centre - half, 1 - 2 * radius, centre + half, 1, INK)
        pen.oval(centre - half / 2, 1 - 1.5 * radius, centre + half / 2, 1 - 0.5 * radius, _RIM)


def _car(pen: Pen, colour: Colour) -> None:
    pen.poly([(0.16, 0.48), (0.3, 0), (0.68, 0), (0.86, 0.48)], colour, outline=True)
    pen.poly([(0.22, 0.46), (0.33, 0.09), (0.47, 0.09), (0.47, 0.46)], _GLASS)
    pen.poly([(0.5, 0.46), (0.5, 0.09), (0.65, 0.09), (0.79, 0.46)], _GLASS)
    pen.poly([(0, 0.5), (0.12, 0.44), (0.88, 0.44), (1, 0.56), (1, 0.84), (0, 0.84)], colour, outline=True)
    pen.rect(0.95, 0.54, 1, 0.66, (255, 240, 190))
    pen.rect(0, 0.54, 0.04, 0.66, _LAMP)
    _wheels(pen, (0.21, 0.79), 0.19)


def _van(pen: Pen, colour: Colour) -> None:
    pen.poly([(0, 0.03), (0.03, 0), (0.74, 0), (0.9, 0.42), (1, 0.5), (1, 0.88), (0, 0.88)], colour, outline=True)
    pen.poly([(0.62, 0.4), (0.62, 0.1), (0.73, 0.1), (0.85, 0.4)], _GLASS)
    pen.rect(0.34, 0.1, 0.57, 0.4, _GLASS)
    pen.rect(0.31, 0.06, 0.32, 0.84, shade(colour, 70))
    pen.rect(0.95, 0.56, 1, 0.66, (255, 240, 190))
    pen.rect(0, 0.5, 0.03, 0.64, _LAMP)
    _wheels(pen, (0.2, 0.8), 0.14)


def _bus(pen: Pen, colour: Colour) -> None:
    pen.rect(0, 0, 1, 0.9, colour, outline=True)
    for place in range(6):
        pen.rect(0.04 + 0.13 * place, 0.14, 0.15 + 0.13 * place, 0.48, _GLASS)
    pen.rect(0.83, 0.14, 0.91, 0.86, _DARK_GLASS)
    pen.rect(0.93, 0.12, 1, 0.56, _GLASS)
    pen.rect(0.02, 0.6, 0.81, 0.66, shade(colour, 65))
    _wheels(pen, (0.18, 0.72), 0.13)


def _truck(pen: Pen, colour: Colour) -> None:
    pen.rect(0.02, 0.74, 0.96, 0.86, _STEEL)
    pen.rect(0, 0, 0.68, 0.78, colour, outline=True)
    for place in range(1, 5):
        pen.rect(0.136 * place - 0.004, 0.05, 0.136 * place + 0.004, 0.73, shade(colour, 75))
    pen.poly([(0.72, 0.22), (0.9, 0.22), (0.97, 0.5), (1, 0.54), (1, 0.86), (0.72, 0.86)], colour, outline=True)
    pen.poly([(0.8, 0.5), (0.8, 0.28), (0.88, 0.28), (0.94, 0.5)], _GLASS)
    _wheels(pen, (0.12, 0.28, 0.85), 0.13)


def _rear(pen: Pen, kind: str, colour: Colour) -> None:
    for left in (0.06, 0.76):
        pen.rect(left, 0.84, left + 0.18, 1, INK)
    if kind == "car":
        pen.poly([(0.1, 0.42), (0.24, 0), (0.76, 0), (0.9, 0.42)], colour, outline=True)
        pen.poly([(0.2, 0.4), (0.29, 0.08), (0.71, 0.08), (0.8, 0.4)], _DARK_GLASS)
        pen.rect(0, 0.4, 1, 0.9, colour, outline=True)
        lamps, plate = (0.48, 0.62), 0.68
    else:
        pen.rect(0, 0, 1, 0.92, colour, outline=True)
        lamps, plate = (0.62, 0.74), 0.76
        if kind == "truck":
            pen.rect(0.48, 0.04, 0.52, 0.72, shade(colour, 65))
            for left in (0.4, 0.56):
                pen.rect(left, 0.36, left + 0.04, 0.5, INK)
        elif kind == "van":
            pen.rect(0.1, 0.1, 0.48, 0.44, _DARK_GLASS)
            pen.rect(0.52, 0.1, 0.9, 0.44, _DARK_GLASS)
        else:
            pen.rect(0.08, 0.2, 0.92, 0.54, _DARK_GLASS)
            pen.rect(0.26, 0.05, 0.74, 0.15, INK)
    for left in (0.04, 0.82):
        pen.rect(left, lamps[0], left + 0.14, lamps[1], _LAMP, outline=True)
    pen.rect(0.38, plate, 0.62, plate + 0.09, _PLATE, outline=True)


def _kiosk(pen: Pen, colour: Colour) -> None:
    pen.rect(0.06, 0.16, 0.94, 1, colour, outline=True)
    pen.rect(0.16, 0.34, 0.66, 0.62, (66, 60, 56))
    pen.rect(0.12, 0.62, 0.7, 0.68, _PLATE)
    pen.rect(0.74, 0.34, 0.9, 1, shade(colour, 70))
    pen.rect(0, 0, 1, 0.18, colour, outline=True)
    for place in range(1, 10, 2):
        pen.rect(0.1 * place, 0.02, 0.1 * place + 0.1, 0.16, _PLATE)


def _building(pen: Pen, kind: str, wall: Colour, band: tuple[float, float], style: int) -> None:
    roof = 0.2 if kind == "house" else 0.03
    if kind == "house":
        peak = 0.5 if style % 2 else 0.25
        pen.rect(0.03, roof, 0.97, 1, wall, outline=True)
        pen.poly([(0, roof), (peak, 0), (1 - peak, 0), (1, roof)], shade(wall, 62), outline=True)
    else:
        pen.rect(0, 0, 1, 1, wall, outline=True)
        pen.rect(0, 0, 1, roof, shade(wall, 60))
    columns = 4 if kind == "house" else 5
    floors = 4 if kind == "house" else 7
    pane, step = (_GLASS, _DARK_GLASS)[style // 2 % 2], (0.86 - roof) / floors
    for floor in range(floors):
        top = roof + 0.04 + step * floor
        bottom = top + step * 0.62
        if top < band[1] and bottom > band[0]:
            continue
        for column in range(columns):
            left = 0.08 + 0.84 * column / columns
            pen.rect(left, top, left + 0.58 * 0.84 / columns, bottom, pane, outline=True)
    if band[1] < 0.84:
        door = (0.12, 0.42, 0.7)[style // 4 % 3]
        pen.rect(door, 0.86, door + 0.16, 1, shade(wall, 45))


def _pole(pen: Pen) -> None:
    pen.rect(0.36, 0, 0.64, 1, _STEEL)
    pen.rect(0, 0, 1, 0.012, _STEEL)
    pen.rect(0, 0.012, 0.3, 0.03, (250, 240, 190), outline=True)
    pen.rect(0.7, 0.012, 1, 0.03, (250, 240, 190), outline=True)
    pen.rect(0.2, 0.97, 0.8, 1, _STEEL)
