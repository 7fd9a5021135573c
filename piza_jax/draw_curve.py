"""A run's scalars as lines over its steps: the loss curve of one or more trainings, as one picture."""

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from piza_jax.errors import PizaError

Points = Sequence[tuple[float, float]]

# Okabe and Ito's colours, apart for every kind of sight.
_COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0))
_PAPER, _INK, _FAINT = (255, 255, 255), (30, 30, 30), (222, 222, 222)
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 24, 44, 52


def line_chart(
    lines: Mapping[str, Points], *, title: str, across: str, up: str, size: tuple[int, int] = (760, 440)
) -> Image.Image:
    """Draw named lines into one frame, with a legend; noisy ones also smoothed, the raw ones pale.

    Args:
        lines: name -> (x, y) points in order of x; values that are not finite leave a gap.
        title: written above.
        across: what x is.
        up: what y is.
        size: width and height of the picture, pixels.

    Returns:
        An RGB image.

    Raises:
        PizaError: no line has a finite point.
    """
    points = [point for line in lines.values() for point in line if all(map(math.isfinite, point))]
    if not points:
        raise PizaError(f"there is nothing to draw for {title!r}: no line has a finite point")
    image = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(image)
    font, bold = ImageFont.load_default(13), ImageFont.load_default(16)
    ranges = [_range([point[axis] for point in points]) for axis in (0, 1)]
    frame = _LEFT, _TOP, size[0] - _RIGHT, size[1] - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        (low_x, high_x), (low_y, high_y) = ranges
        return (
            frame[0] + (x - low_x) / (high_x - low_x) * (frame[2] - frame[0]),
            frame[3] - (y - low_y) / (high_y - low_y) * (frame[3] - frame[1]),
        )

    for value in _ticks(*ranges[1]):
        _, y = place(ranges[0][0], value)
        pen.line((frame[0], y, frame[2], y), _FAINT)
        pen.text((frame[0] - 8, y), f"{value:g}", _INK, font, anchor="rm")
    for value in _ticks(*ranges[0]):
        x, _ = place(value, ranges[1][0])
        pen.line((x, frame[3], x, frame[3] + 4), _INK)
        pen.text((x, frame[3] + 8), f"{value:g}", _INK, font, anchor="ma")
    pen.line((frame[0], frame[3], frame[2], frame[3]), _INK)
    pen.text((_LEFT, 14), title, _INK, bold)
    pen.text(((frame[0] + frame[2]) / 2, size[1] - 10), across, _INK, font, anchor="ms")
    pen.text((8, _TOP - 8), up, _INK, font, anchor="ls")
    right = float(frame[2])
    for number, (name, line) in enumerate(reversed(list(lines.items()))):
        colour = _COLOURS[(len(lines) - 1 - number) % len(_COLOURS)]
        pale = tuple(round(0.3 * part + 0.7 * 255) for part in colour)
        _draw(pen, [place(*point) for point in line if all(map(math.isfinite, point))], pale, 1)
        smooth = _smoothed([point for point in line if all(map(math.isfinite, point))])
        _draw(pen, [place(*point) for point in smooth], colour, 2)
        pen.text((right, _TOP + 4), name, colour, font, anchor="ra")
        right -= pen.textlength(name, font) + 18
    return image


def _draw(pen: ImageDraw.ImageDraw, points: list[tuple[float, float]], colour: tuple[int, ...], width: int) -> None:
    if len(points) == 1:
        x, y = points[0]
        pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
    elif points:
        pen.line([value for point in points for value in point], fill=colour, width=width, joint="curve")


def _smoothed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Each value with its neighbours, a tenth of the line on the whole."""
    reach = len(points) // 20
    means = []
    for place, (x, _) in enumerate(points):
        near = points[max(place - reach, 0) : place + reach + 1]
        means.append((x, sum(y for _, y in near) / len(near)))
    return means


def _range(values: list[float]) -> tuple[float, float]:
    """From the least to the largest value, opened where they are one."""
    low, high = min(values), max(values)
    room = (high - low) * 0.04 or max(abs(high), 1.0) * 0.5
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Five or so round numbers within a range."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step)
    return [round(number * step, 12) for number in range(first, math.floor(high / step) + 1)]
