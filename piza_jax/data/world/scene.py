"""A scene as plain data: what stands where. No pixels, no chance."""

from dataclasses import dataclass

WIDTH, HEIGHT = 2048, 1536
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Thing:
    """One thing of a scene.

    Attributes:
        kind: a name of kinds.SMALL or kinds.LARGE_KINDS.
        colour: name of its colour; "" for poles.
        detail: what tells it from others of its kind and colour; None for large things and kinds without details.
        box: x0, y0, x1, y1 in pixels of the scene, ends exclusive.
        large: an anchor of expressions rather than what they usually speak of.
        view: "side" or "rear" for vehicles, else "".
        flip: mirrored.
        band: top and bottom of a building's wall without windows, thousandths of its height.
        style: picks windows and doors.
    """

    kind: str
    colour: str
    detail: str | None
    box: Box
    large: bool = False
    view: str = ""
    flip: bool = False
    band: tuple[int, int] = (0, 0)
    style: int = 0

    @property
    def centre(self) -> tuple[float, float]:
        """x and y of the middle, pixels."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def area(self) -> int:
        """Pixels in the box."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])

    def part_in(self, window: Box) -> float:
        """How much of the box is in a window of the scene, 0..1."""
        across = min(self.box[2], window[2]) - max(self.box[0], window[0])
        down = min(self.box[3], window[3]) - max(self.box[1], window[1])
        return max(across, 0) * max(down, 0) / self.area


@dataclass(frozen=True)
class Street:
    """What lies behind and below the things.

    Attributes:
        kerb: y where the buildings stand and the ground begins, pixels.
        vanish_x: x at which the road vanishes, pixels.
        road_top: left and right end of the road at the kerb, pixels.
        road_bottom: the same at the lower side of the scene.
        sky, ground, road: colours.
        tint: percent by which red, green and blue of all are scaled.
        texture: seed of the ground's grain, clouds and trees.
    """

    kerb: int
    vanish_x: int
    road_top: tuple[int, int]
    road_bottom: tuple[int, int]
    sky: tuple[int, int, int]
    ground: tuple[int, int, int]
    road: tuple[int, int, int]
    tint: tuple[int, int, int]
    texture: int

    def road_at(self, y: int) -> tuple[int, int]:
        """Left and right end of the road at a height below the kerb, pixels."""
        span, part = HEIGHT - self.kerb, y - self.kerb
        left, right = (
            top + (low - top) * part // span for top, low in zip(self.road_top, self.road_bottom, strict=True)
        )
        return left, right


@dataclass(frozen=True)
class Scene:
    """A street and its things, the far ones first."""

    seed: int
    street: Street
    things: tuple[Thing, ...]
