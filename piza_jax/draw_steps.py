"""A zoom over its photo: the box of every step in a colour of its own, as one picture or as a moving one."""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from piza_jax.draw import _HALO, Colour, _check, _font, _image, _rectangle, _surroundings, step_colours, write_whole
from piza_jax.errors import PizaError
from piza_jax.results import Box, Grounding

_BETWEEN, _BETWEEN_MS, _HOLD_MS = 7, 70, 1100  # pictures from one view to the next, and how long each is shown


def with_steps(photo: Image.Image | np.ndarray, grounding: Grounding, longest_side: int = 1600) -> Image.Image:
    """The photo with the box of each step, numbered, in the colours of ``step_colours``; the last lies on top.

    Boxes of a few pixels are drawn larger than they are, so that they are seen.

    Args:
        photo: RGB Pillow image or uint8 [H, W, 3], in whose pixels the boxes count.
        grounding: what was found in it.
        longest_side: of the picture, pixels; a smaller photo keeps its size.

    Returns:
        An RGB image.

    Raises:
        PizaError: a photo that is no image, or boxes that do not lie in it.
    """
    image = _image(photo)
    boxes = _boxes(grounding)
    for box in boxes:
        _check(box, image.size)
    scale = min(longest_side / max(image.size), 1.0)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    picture = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    pen = ImageDraw.Draw(picture)
    stroke, font = max(round(max(size) / 450), 2), _font(max(round(max(size) / 70), 11))
    for number, (box, colour) in enumerate(zip(boxes, step_colours(len(boxes)), strict=True), 1):
        placed = [side * scale for side in box]
        _rectangle(pen, placed, size, stroke, False, colour)
        _tag(pen, str(number), placed, size, stroke, font, colour)
    return picture


def zoom_frames(
    photo: Image.Image | np.ndarray, grounding: Grounding, width: int = 560
) -> Iterator[tuple[Image.Image, int]]:
    """The zoom as a moving picture: from the whole photo through each step's crop to the surroundings of the box.

    Args:
        photo: RGB Pillow image or uint8 [H, W, 3], in whose pixels the boxes count.
        grounding: what was found in it.
        width: of the pictures, pixels; their height follows from the photo, and is at most the width.

    Yields:
        Pictures and how long each is shown, milliseconds.

    Raises:
        PizaError: as ``with_steps``.
    """
    image = _image(photo)
    boxes = _boxes(grounding)
    for box in boxes:
        _check(box, image.size)
    height = min(max(round(width * image.height / image.width), width // 3), width)
    whole = (0.0, 0.0, float(image.width), float(image.height))
    stops: list[tuple[Box, int | None]] = [(whole, None)]
    stops += [(step.crop, number) for number, step in enumerate(grounding.steps)]
    stops.append((_surroundings(grounding.box, image.size), len(boxes) - 1))
    colours = step_colours(len(boxes))
    views = [_of_aspect(crop, width / height) for crop, _ in stops]
    for number, (view, (_, shown)) in enumerate(zip(views, stops, strict=True)):
        if number and view == views[number - 1]:
            between: list[Box] = []
        else:
            between = _between(views[number - 1], view) if number else []
        before = stops[number - 1][1] if number else None
        for one in between:
            yield _shot(image, one, (width, height), boxes, colours, before, grounding), _BETWEEN_MS
        yield _shot(image, view, (width, height), boxes, colours, shown, grounding), _HOLD_MS


def save_gif(photo: Image.Image | np.ndarray, grounding: Grounding, path: str | os.PathLike[str]) -> None:
    """Write ``zoom_frames`` as an endless GIF; a reader sees the old file or the whole new one.

    Raises:
        PizaError: as ``zoom_frames``; another suffix than .gif, or a folder that is missing or cannot be written.
    """
    path = Path(path)
    check_gif(path)
    frames, durations = zip(*zoom_frames(photo, grounding), strict=True)
    small = [frame.quantize(128, dither=Image.Dither.NONE) for frame in frames]
    options = {"save_all": True, "append_images": small[1:], "duration": list(durations), "loop": 0}
    write_whole(path, lambda place: small[0].save(place, "GIF", **options))


def check_gif(path: str | os.PathLike[str]) -> None:
    """PizaError where ``save_gif`` could not write."""
    path = Path(path)
    if path.suffix.lower() != ".gif":
        raise PizaError(f"cannot save a moving picture as {path}: its name must end in .gif")
    if not path.parent.is_dir():
        raise PizaError(f"cannot save {path}: there is no folder {path.parent}; create it first")


def _boxes(grounding: Grounding) -> list[Box]:
    """One box a step; the final box alone where no steps are known."""
    return [step.box for step in grounding.steps] or [grounding.box]


def _tag(
    pen: ImageDraw.ImageDraw,
    text: str,
    box: Sequence[float],
    size: tuple[int, int],
    stroke: int,
    font: object,
    colour: Colour,
) -> None:
    """A number at the upper left corner of a box, outside it where there is room."""
    side = round(1.35 * font.size)  # type: ignore[attr-defined]
    left = min(max(round(box[0]) - side - stroke, 0), size[0] - side)
    top = min(max(round(box[1]) - side - stroke, 0), size[1] - side)
    pen.rectangle((left, top, left + side, top + side), fill=colour, outline=_HALO)
    pen.text((left + side / 2 + 0.5, top + side / 2 + 0.5), text, fill=_HALO, font=font, anchor="mm")  # type: ignore[arg-type]


def _of_aspect(crop: Box, aspect: float) -> Box:
    """The smallest box of an aspect (width over height) around a crop; it may stick out of the photo."""
    width, height = crop[2] - crop[0], crop[3] - crop[1]
    wide, high = max(width, height * aspect), max(height, width / aspect)
    x, y = (crop[0] + crop[2]) / 2, (crop[1] + crop[3]) / 2
    return x - wide / 2, y - high / 2, x + wide / 2, y + high / 2


def _between(start: Box, end: Box) -> list[Box]:
    """Views on the way, as a camera's that flies to one point: each smaller than the last by the same factor."""
    first, last = start[2] - start[0], end[2] - end[0]
    views = []
    for part in np.linspace(0, 1, _BETWEEN + 2)[1:-1]:
        side = first * (last / first) ** part
        moved = (first - side) / (first - last) if abs(math.log(last / first)) > 1e-3 else part
        x, y = (
            (1 - moved) * (start[axis] + start[axis + 2]) / 2 + moved * (end[axis] + end[axis + 2]) / 2
            for axis in (0, 1)
        )
        half_high = side / 2 * (end[3] - end[1]) / last
        views.append((float(x - side / 2), float(y - half_high), float(x + side / 2), float(y + half_high)))
    return views


def _shot(
    image: Image.Image,
    view: Box,
    size: tuple[int, int],
    boxes: Sequence[Box],
    colours: Sequence[Colour],
    shown: int | None,
    grounding: Grounding,
) -> Image.Image:
    """What the camera sees, grey beyond the photo's edges, with the box of one step and its score."""
    scale = size[0] / (view[2] - view[0])
    inside = (max(view[0], 0.0), max(view[1], 0.0), min(view[2], image.width), min(view[3], image.height))
    placed = [round((side - low) * scale) for side, low in zip(inside, view[:2] * 2, strict=True)]
    part = (max(placed[2] - placed[0], 1), max(placed[3] - placed[1], 1))
    picture = Image.new("RGB", size, (60, 60, 60))
    picture.paste(image.resize(part, Image.Resampling.BICUBIC, inside, reducing_gap=3.0), (placed[0], placed[1]))
    if shown is not None:
        pen, stroke = ImageDraw.Draw(picture), max(size[0] // 200, 2)
        box = [(side - low) * scale for side, low in zip(boxes[shown], view[:2] * 2, strict=True)]
        _rectangle(pen, box, size, stroke, False, colours[shown])
        score = grounding.steps[shown].score if grounding.steps else grounding.score
        font = _font(max(size[0] // 34, 11))
        text = f"step {shown + 1}" + ("" if math.isnan(score) else f"   score {score:.2f}")
        room = (8, 8, 8 + round(font.getlength(text)) + 14, 8 + round(1.7 * font.size))
        pen.rectangle(room, fill=colours[shown], outline=_HALO)
        pen.text((room[0] + 7, (room[1] + room[3]) / 2), text, fill=_HALO, font=font, anchor="lm")
    return picture
