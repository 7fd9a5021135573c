"""Drawing into a box with coordinates from 0 to 1, on a patch that is larger than its place by a whole factor."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from piza_jax.data.world.kinds import COLOURS, INK, Colour

_WHITE: Colour = (246, 246, 246)
_GREY: Colour = (140, 142, 150)


def contrast(colour: Colour) -> Colour:
    """The colour of stripes and dots on a thing of a colour.

    Grey on white and on black, or white stripes on black would pass for black stripes on white.
    """
    if colour in (COLOURS["white"], COLOURS["black"]):
        return _GREY
    return INK if sum(colour) > 480 else _WHITE


class Pen:
    """Shapes in the unit square of a patch; (0, 0) is its top left corner, ends are exclusive."""

    def __init__(self, patch: Image.Image, line: int, flip: bool = False):
        """Draw on ``patch``; outlines are ``line`` of its pixels wide, flip mirrors left and right."""
        self.patch, self.line, self.flip = patch, line, flip
        self.draw = ImageDraw.Draw(patch)

    def rect(self, u0: float, v0: float, u1: float, v1: float, fill: Colour, outline: bool = False) -> None:
        """A filled rectangle."""
        box = self._box(u0, v0, u1, v1)
        if box:
            self.draw.rectangle(box, fill, INK if outline else None, self.line)

    def oval(self, u0: float, v0: float, u1: float, v1: float, fill: Colour | None, outline: bool = False) -> None:
        """A filled ellipse, or the outline of one where fill is None."""
        box = self._box(u0, v0, u1, v1)
        if box:
            self.draw.ellipse(box, fill, INK if outline else None, self.line)

    def ring(self, u0: float, v0: float, u1: float, v1: float, colour: Colour, width: float) -> None:
        """An ellipse's outline, its width a part of the patch's height."""
        box = self._box(u0, v0, u1, v1)
        if box:
            self.draw.ellipse(box, None, colour, max(round(width * self.patch.height), 1))

    def poly(self, points: Sequence[tuple[float, float]], fill: Colour, outline: bool = False) -> None:
        """A filled polygon."""
        self.draw.polygon(self._points(points), fill, INK if outline else None, self.line)

    def stroke(self, points: Sequence[tuple[float, float]], colour: Colour, width: float) -> None:
        """Joined lines, their width a part of the patch's height."""
        self.draw.line(self._points(points), colour, max(round(width * self.patch.height), 1), joint="curve")

    def body(self, shape: str, points: Sequence[tuple[float, float]], colour: Colour, detail: str | None) -> None:
        """A "rect", "oval" or "poly" in a colour, patterned as the detail says, with a dark outline."""
        flat = self._points(points)
        left, right = min(p[0] for p in points), max(p[0] for p in points)
        top, bottom = min(p[1] for p in points), max(p[1] for p in points)
        box = self._box(left, top, right, bottom)
        assert box is not None
        mark = contrast(colour)
        pattern = {"striped": self._stripes, "dotted": self._dots, "crossed": self._cross}.get(detail or "")
        if pattern is not None:
            sheet, mask = Image.new("RGB", self.patch.size, colour), Image.new("L", self.patch.size, 0)
            pattern(ImageDraw.Draw(sheet), box, mark)
            stencil = ImageDraw.Draw(mask)
            if shape == "poly":
                stencil.polygon(flat, 255)
            else:
                (stencil.rectangle if shape == "rect" else stencil.ellipse)(box, 255)
            self.patch.paste(sheet, (0, 0), mask)
        fill = colour if pattern is None else None
        if shape == "poly":
            self.draw.polygon(flat, fill, INK, self.line)
        else:
            (self.draw.rectangle if shape == "rect" else self.draw.ellipse)(box, fill, INK, self.line)

    @staticmethod
    def _stripes(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], mark: Colour) -> None:
        height = box[3] - box[1] + 1
        for part in (1, 3):
            draw.rectangle((box[0], box[1] + height * part // 5, box[2], box[1] + height * (part + 1) // 5 - 1), mark)

    @staticmethod
    def _dots(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], mark: Colour) -> None:
        width, height = box[2] - box[0] + 1, box[3] - box[1] + 1
        radius = max(min(width, height) * 13 // 100, 1)
        for across, down in ((28, 28), (72, 28), (50, 52), (28, 76), (72, 76)):
            x, y = box[0] + width * across // 100, box[1] + height * down // 100
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), mark)

    @staticmethod
    def _cross(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], mark: Colour) -> None:
        width = max((box[3] - box[1] + 1) * 17 // 100, 1)
        draw.line((box[0], box[1], box[2], box[3]), mark, width)
        draw.line((box[0], box[3], box[2], box[1]), mark, width)

    def _box(self, u0: float, v0: float, u1: float, v1: float) -> tuple[int, int, int, int] | None:
        if self.flip:
            u0, u1 = 1 - u1, 1 - u0
        width, height = self.patch.size
        box = round(u0 * width), round(v0 * height), round(u1 * width) - 1, round(v1 * height) - 1
        return box if box[2] >= box[0] and box[3] >= box[1] else None

    def _points(self, points: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
        width, height = self.patch.width - 1, self.patch.height - 1
        return [(round((1 - u if self.flip else u) * width), round(v * height)) for u, v in points]
