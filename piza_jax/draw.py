"""A grounding as one picture: the photo, the crop of each zoom step with the box found in it, and the result."""

import math
import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from piza_jax.errors import PizaError
from piza_jax.ops.boxes import iou_and_giou
from piza_jax.results import Box, Grounding

FOUND, TARGET = (213, 94, 0), (86, 180, 233)  # vermilion and sky blue of Okabe and Ito: apart for every kind of sight
_PAPER, _GROUND, _INK, _FAINT, _HALO = (255, 255, 255), (236, 236, 236), (20, 20, 20), (85, 85, 85), (0, 0, 0)

Colour = tuple[int, int, int]

LEAST_HEIGHT = 80
_FRAMES_IN_ROW = 4  # a longer row is shrunk so much on a screen that its captions cannot be read
_ASPECTS = (0.62, 2.2)  # narrowest and widest frame; the captions need room, and a very wide photo gets paper around it
_CONTEXT = 2.5  # side of the last frame in longest sides of the box
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


# Okabe and Ito's; the last step always has FOUND.
_STEPS = ((86, 180, 233), (240, 228, 66), (0, 158, 115), (204, 121, 167), (230, 159, 0))


class _Frame(NamedTuple):
    crop: Box  # xyxy photo pixels
    box: Box | None
    heading: str
    lines: tuple[str, ...]
    colour: Colour = FOUND


def step_colours(count: int) -> list[Colour]:
    """Colours (RGB, 0..255) of the steps of a zoom, in order; the last one is that of all final boxes."""
    return [*(_STEPS[number % len(_STEPS)] for number in range(count - 1)), FOUND][:count]


def film_strip(
    photo: Image.Image | np.ndarray,
    grounding: Grounding,
    *,
    height: int = 320,
    target_xyxy: Sequence[float] | None = None,
    coloured: bool = False,
) -> Image.Image:
    """Draw a zoom: the whole photo, each crop with the box found in it, and the surroundings of the final box.

    Boxes found are solid, the target is dashed. A box of a few pixels is drawn larger than it is, so that it is seen;
    only its edges move, and the last frame shows it true to scale. Rows hold four frames.

    Args:
        photo: RGB Pillow image or uint8 [H, W, 3], in whose pixels the boxes count; ``Grounder.read`` gives it.
        grounding: what was found in it.
        height: of a frame without its caption, pixels.
        target_xyxy: the true box in photo pixels, if it is known.
        coloured: the box of each step in its colour of ``step_colours`` instead of one colour for all.

    Returns:
        An RGB image.

    Raises:
        PizaError: a photo that is no image, boxes that do not lie in it, or a height below LEAST_HEIGHT.
    """
    if height < LEAST_HEIGHT:
        raise PizaError(f"a film strip of height {height} pixels cannot be read; make it at least {LEAST_HEIGHT}")
    image = _image(photo)
    target = None if target_xyxy is None else _corners(target_xyxy)
    crops_and_boxes = [box for step in grounding.steps for box in (step.crop, step.box)]
    for box in (*crops_and_boxes, grounding.box, *([] if target is None else [target])):
        _check(box, image.size)
    frames = _frames(grounding, image.size, target)
    if coloured:
        colours = [FOUND] * (len(frames) - len(grounding.steps) - 1) + step_colours(len(grounding.steps)) + [FOUND]
        frames = [frame._replace(colour=colour) for frame, colour in zip(frames, colours, strict=True)]
    small, bold = _font(max(height // 20, 12)), _font(max(height // 17, 13))
    gap = max(height // 20, 8)
    views = [_view(image, frame, target, height) for frame in frames]
    cells = _with_captions(views, frames, small, bold)
    rows = _rows(cells)
    width = max(sum(cell.width for cell in row) + gap * (len(row) + 1) for row in rows)
    title = _title(grounding.expression, target is not None, width - 2 * gap, bold, small)
    strip = Image.new("RGB", (width, title.height + gap + sum(row[0].height + gap for row in rows)), _PAPER)
    strip.paste(title, (gap, gap))
    top = title.height + gap
    for row in rows:
        left = gap
        for cell in row:
            strip.paste(cell, (left, top))
            left += cell.width + gap
        top += row[0].height + gap
    return strip


def save(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write a picture as its suffix says (.png, .jpg, .jpeg, .webp); a reader sees the old file or the whole new one.

    Raises:
        PizaError: another suffix, or a folder that is missing or cannot be written.
    """
    path = Path(path)
    kind = check_path(path)
    write_whole(path, lambda place: image.convert("RGB").save(place, kind, quality=92))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file beside path and put it there when it is whole. PizaError where it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise PizaError(
            f"cannot save {path}: {error.strerror or error}; choose a folder that can be written"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_path(path: str | os.PathLike[str]) -> str:
    """Pillow's name of the format of a path that ``save`` can write; PizaError as there."""
    path = Path(path)
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise PizaError(f"cannot save a picture as {path}: its name must end in one of {', '.join(_FORMATS)}")
    if not path.parent.is_dir():
        raise PizaError(f"cannot save {path}: there is no folder {path.parent}; create it first")
    return kind


def _image(photo: Image.Image | np.ndarray) -> Image.Image:
    if isinstance(photo, Image.Image):
        return photo.convert("RGB")
    array = np.asarray(photo)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise PizaError(
            f"a photo to draw on must be a Pillow image or uint8 [H, W, 3], not {array.dtype} {list(array.shape)}; "
            "Grounder.read(path) gives one"
        )
    return Image.fromarray(array)


def _corners(box: Sequence[float]) -> Box:
    x0, y0, x1, y1 = (float(value) for value in box)
    return x0, y0, x1, y1


def _check(box: Box, size: tuple[int, int]) -> None:
    """Boxes may stick out by a pixel, as annotations that were rounded do."""
    inside = -1 <= box[0] < box[2] <= size[0] + 1 and -1 <= box[1] < box[3] <= size[1] + 1
    if not inside:
        raise PizaError(
            f"box {[round(side, 1) for side in box]} (xyxy pixels) does not lie in the photo of {size[0]} x {size[1]}; "
            "draw on the photo that was searched, turned the same way (Grounder.read gives it)"
        )


def _frames(grounding: Grounding, size: tuple[int, int], target: Box | None) -> list[_Frame]:
    width, height = size
    whole = (0.0, 0.0, float(width), float(height))
    frames = []
    if not grounding.steps or max(abs(a - b) for a, b in zip(grounding.steps[0].crop, whole, strict=True)) > 1:
        frames.append(_Frame(whole, None, "photo", (f"{width} x {height} px",)))
    for number, step in enumerate(grounding.steps, 1):
        lines = _readings(score=step.score, progress=step.progress, stop=step.stop_probability)
        frames.append(_Frame(step.crop, step.box, f"step {number}", lines))
    x0, y0, x1, y1 = grounding.box
    end = [*_readings(score=grounding.score), f"{x1 - x0:.0f} x {y1 - y0:.0f} px"]
    if target is not None:
        end.append(f"IoU {float(iou_and_giou(jnp.array(grounding.box), jnp.array(target))[0]):.2f}")
    frames.append(_Frame(_surroundings(grounding.box, size), grounding.box, "result", tuple(end)))
    return frames


def _readings(**values: float) -> tuple[str, ...]:
    """Names and numbers; NaN is left out, as predictions from files may have no scores."""
    known = [f"{name} {value:.2f}" for name, value in values.items() if not math.isnan(value)]
    return tuple(text.replace("-0.00", "0.00") for text in known)


def _surroundings(box: Box, size: tuple[int, int]) -> Box:
    """The square around a box, shifted or cut to lie in the photo."""
    side = _CONTEXT * max(box[2] - box[0], box[3] - box[1])
    low, high = [], []
    for axis in (0, 1):
        length = min(side, size[axis])
        start = min(max((box[axis] + box[axis + 2] - length) / 2, 0), size[axis] - length)
        low.append(start)
        high.append(start + length)
    return low[0], low[1], high[0], high[1]


def _view(image: Image.Image, frame: _Frame, target: Box | None, height: int) -> Image.Image:
    """The crop of a frame with its boxes, on faint ground where it is too wide or too narrow to fill its place."""
    x0, y0 = max(frame.crop[0], 0), max(frame.crop[1], 0)
    x1, y1 = min(frame.crop[2], image.width), min(frame.crop[3], image.height)
    aspect = (x1 - x0) / (y1 - y0)
    shown_height = min(height, max(round(height * _ASPECTS[1] / aspect), 1))
    shown_width = max(round(shown_height * aspect), 1)
    view = image.resize((shown_width, shown_height), Image.Resampling.BICUBIC, (x0, y0, x1, y1), reducing_gap=3.0)
    pen = ImageDraw.Draw(view)
    stroke = max(height // 100, 2)
    for box, dashed in ((frame.box, False), (target, True)):
        if box is not None and box[2] > x0 and box[0] < x1 and box[3] > y0 and box[1] < y1:
            scale = shown_width / (x1 - x0), shown_height / (y1 - y0)
            placed = [(side - low) * s for side, low, s in zip(box, (x0, y0) * 2, scale * 2, strict=True)]
            _rectangle(pen, placed, view.size, stroke, dashed, frame.colour)
    width = max(shown_width, round(height * _ASPECTS[0]))
    place = Image.new("RGB", (width, height), _GROUND)
    place.paste(view, ((width - shown_width) // 2, (height - shown_height) // 2))
    return place


def _with_captions(
    views: list[Image.Image], frames: list[_Frame], small: ImageFont.FreeTypeFont, bold: ImageFont.FreeTypeFont
) -> list[Image.Image]:
    """Each view with its caption below it, all of one height."""
    texts = [_lines(frame.lines, view.width, small) for view, frame in zip(views, frames, strict=True)]
    lead, heading = round(1.35 * small.size), round(1.4 * bold.size)
    room = lead // 3 + heading + lead * max(map(len, texts))
    cells = []
    for view, frame, lines in zip(views, frames, texts, strict=True):
        cell = Image.new("RGB", (view.width, view.height + room), _PAPER)
        cell.paste(view)
        pen, top = ImageDraw.Draw(cell), view.height + lead // 3
        pen.text((0, top), frame.heading, fill=_INK, font=bold, stroke_width=0.4)
        for number, line in enumerate(lines):
            pen.text((0, top + heading + number * lead), line, fill=_FAINT, font=small)
        cells.append(cell)
    return cells


def _rectangle(
    pen: ImageDraw.ImageDraw,
    box: Sequence[float],
    size: tuple[int, int],
    stroke: int,
    dashed: bool,
    colour: Colour = FOUND,
) -> None:
    """A box around what it holds, dark on both sides of its colour so that it shows on any ground."""
    least, edges = 4 * stroke, [0, 0, 0, 0]
    for axis in (0, 1):
        low, high = max(box[axis], 0), min(box[axis + 2], size[axis])
        length = max(high - low, least)
        start = min(max((low + high - length) / 2, 0), max(size[axis] - length, 0))
        edges[axis] = max(round(start) - stroke, 0)
        edges[axis + 2] = min(round(start + length) + stroke, size[axis]) - 1
    if not dashed:
        outer = (edges[0] - 1, edges[1] - 1, edges[2] + 1, edges[3] + 1)
        pen.rectangle(outer, outline=_HALO, width=stroke + 2)
        pen.rectangle(edges, outline=colour, width=stroke)
        return
    x0, y0, x1, y1 = edges
    bars = [(start, y, end, y + stroke - 1) for start, end in _dashes(x0, x1, stroke) for y in (y0, y1 - stroke + 1)]
    bars += [(x, start, x + stroke - 1, end) for start, end in _dashes(y0, y1, stroke) for x in (x0, x1 - stroke + 1)]
    for left, top, right, bottom in bars:
        pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=_HALO)
    for bar in bars:
        pen.rectangle(bar, fill=TARGET)


def _dashes(low: int, high: int, stroke: int) -> list[tuple[int, int]]:
    """Dashes from corner to corner, an odd number of equal parts of which every second one is drawn."""
    parts = max(round((high - low) / (4 * stroke)) // 2 * 2 + 1, 3)
    marks = np.linspace(low, high + 1, parts + 1).round().astype(int)
    return [(int(marks[i]), int(marks[i + 1]) - 1) for i in range(0, parts, 2)]


def _rows(cells: list[Image.Image]) -> list[list[Image.Image]]:
    """Rows of about the same number of frames."""
    count = -(-len(cells) // _FRAMES_IN_ROW)
    length = -(-len(cells) // count)
    return [cells[start : start + length] for start in range(0, len(cells), length)]


def _title(
    expression: str, with_target: bool, width: int, bold: ImageFont.FreeTypeFont, small: ImageFont.FreeTypeFont
) -> Image.Image:
    """The expression, if there is one, in at most two lines, and what the colours mean where there are two."""
    lines = _wrap(_printable(expression), width, bold, 2) if expression else []
    lead = round(1.35 * bold.size)
    title = Image.new("RGB", (width, lead * (len(lines) + with_target) + lead // (2 if with_target else 4)), _PAPER)
    pen = ImageDraw.Draw(title)
    for number, line in enumerate(lines):
        pen.text((0, number * lead), line, fill=_INK, font=bold)
    if with_target:
        left, side, top = 0, round(0.8 * small.size), len(lines) * lead + lead // 5
        for name, dashed in (("found", False), ("target", True)):
            box = (left + 2, top + 2, left + 2 * side, top + side + 2)
            pen.rectangle(box, outline=TARGET if dashed else FOUND, width=3)
            if dashed:
                pen.rectangle((left + side - 1, box[1], left + side + 3, box[3]), fill=_PAPER)
            pen.text((left + 2 * side + 6, top), name, fill=_FAINT, font=small)
            left += 2 * side + 26 + round(small.getlength(name))
    return title


def _lines(words: Sequence[str], width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """Words put together, as many as fit, in lines."""
    lines: list[str] = []
    for word in words:
        joined = f"{lines[-1]}   {word}" if lines else ""
        if joined and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def _wrap(text: str, width: int, font: ImageFont.FreeTypeFont, most: int) -> list[str]:
    """Text in lines of at most ``width`` pixels; what does not fit ``most`` lines ends in an ellipsis."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(word)
    lines[most - 1 :] = [" ".join(lines[most - 1 :])] if len(lines) > most else lines[most - 1 :]
    return [_elide(line, width, font) for line in lines]


def _elide(line: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}…") > width:
        line = line[:-1].rstrip()
    return f"{line}…"


def _printable(text: str) -> str:
    """Letters without their accents, as Pillow's own font has none; "?" for what it lacks besides."""
    folded = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    plain = "".join("-" if unicodedata.category(c) == "Pd" or c == "\u2212" else c for c in folded)
    return "".join(c if c.isspace() or " " <= c <= "~" or c in "\u2018\u2019\u201c\u201d" else "?" for c in plain)


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise PizaError("this Pillow was built without FreeType and cannot write captions; install Pillow's own wheel")
    return font
