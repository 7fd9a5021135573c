"""The pictures of a split: a scene or a window of one, the expressions about it, and their boxes."""

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from piza_jax.data.records import Record
from piza_jax.data.world.expressions import Expression, Speaker, is_rare
from piza_jax.data.world.layout import make_scene
from piza_jax.data.world.render import place, render
from piza_jax.data.world.scene import HEIGHT, WIDTH, Box, Scene, Thing
from piza_jax.data.world.splits import Split

MOST_EXPRESSIONS = 10  # in one picture
NORMAL_SIDES = (0.035, 0.40)  # side of a normal target over the picture's, roots of areas
_QUALITY = 85
_WHOLE: Box = (0, 0, WIDTH, HEIGHT)
_WHOLE_SIZE, _WINDOW_SIZE = (768, 576), (640, 480)  # of normal pictures
_TRIES = 12


@dataclass(frozen=True)
class Picture:
    """A picture before it is drawn.

    Attributes:
        number: its number in the split.
        name: file name.
        scene: what there is.
        window: what is seen of it, xyxy in the scene's pixels.
        size: width and height of the picture, pixels.
        expressions: what is said; every target lies wholly in the picture.
    """

    number: int
    name: str
    scene: Scene
    window: Box
    size: tuple[int, int]
    expressions: tuple[Expression, ...]

    @property
    def records(self) -> list[Record]:
        """One record for each expression, its box in the picture's pixels."""
        return [
            Record(self.number * 100 + order, self.name, said.text, tuple(map(float, self.box_of(said))))  # type: ignore[arg-type]
            for order, said in enumerate(self.expressions)
        ]

    def box_of(self, expression: Expression) -> Box:
        """Box of an expression's target, xyxy in the picture's pixels."""
        return place(self.scene.things[expression.target].box, self.window, self.size)

    def draw(self) -> Image.Image:
        """The picture, RGB."""
        return render(self.scene, self.window, self.size)

    def jpeg(self) -> bytes:
        """The picture as a JPEG file."""
        buffer = io.BytesIO()
        self.draw().save(buffer, "JPEG", quality=_QUALITY)
        return buffer.getvalue()


def make_picture(split: Split, number: int, speak: bool = True) -> Picture:
    """Picture ``number`` of a split.

    Args:
        split: as splits.find_split gives it.
        number: 0 or more.
        speak: look for expressions; False may leave them out, where the picture does not depend on them.

    Raises:
        PizaError: if the split has no picture of that number.
    """
    seed = split.seed(number)
    scene = make_scene(seed, rare=split.targets == "rare")
    rng = np.random.default_rng([seed, 2])  # apart from the scene's own chance
    name = f"{'normal_' if split.normal else ''}{split.name}_{number:06d}.jpg"
    if split.normal:
        window, size, expressions = _normal(scene, rng, windowed=number % 3 > 0)
    else:
        window, size = _WHOLE, (WIDTH, HEIGHT)
        expressions = _small(scene, rng, split.targets) if speak else []
    return Picture(number, name, scene, window, size, tuple(expressions))


def _small(scene: Scene, rng: np.random.Generator, targets: str) -> list[Expression]:
    """Expressions about small things of the whole scene, each as likely as any other."""
    speaker = Speaker(scene, rng)
    wanted = {"all": (False, True), "common": (False,), "rare": (True,)}[targets]
    looks = [(thing.kind, thing.colour, thing.detail) for thing in scene.things if not thing.large]
    numbers = [
        number
        for number in speaker.index.small
        if is_rare(scene.things[number]) in wanted and _has_look_alike(scene.things[number], looks)
    ]
    return _collect(speaker.small, [numbers[place] for place in rng.permutation(len(numbers))])


def _has_look_alike(thing: Thing, looks: list[tuple[str, str, str | None]]) -> bool:
    """Whether another small thing differs in one attribute or none."""
    kind, colour, detail = thing.kind, thing.colour, thing.detail
    # The thing itself is the one that differs in nothing.
    return sum((kind != other[0]) + (colour != other[1]) + (detail != other[2]) <= 1 for other in looks) > 1


def _normal(scene: Scene, rng: np.random.Generator, windowed: bool) -> tuple[Box, tuple[int, int], list[Expression]]:
    """The whole scene with large targets, or a window in which small ones are large."""
    small = [number for number, thing in enumerate(scene.things) if not thing.large]
    if windowed:
        for target in [small[place] for place in rng.permutation(len(small))[:_TRIES]]:
            window = _window(scene.things[target], rng)
            speaker = Speaker(scene, rng, window)
            seen = [number for number in small if _ordinary(scene.things[number], window)]
            expressions = _collect(speaker.small, [seen[place] for place in rng.permutation(len(seen))])
            if expressions:
                return window, _WINDOW_SIZE, expressions
    speaker = Speaker(scene, rng)
    large = [number for number in speaker.index.large if _ordinary(scene.things[number], _WHOLE)]
    return _WHOLE, _WHOLE_SIZE, _collect(speaker.large, [large[place] for place in rng.permutation(len(large))])


def _window(thing: Thing, rng: np.random.Generator) -> Box:
    """A window in which a thing takes 4% to 17% of the side, anywhere but at the very edge.

    In half of them it takes less than 9%: they hold several groups of look-alikes, which only what stands beside them
    tells apart.
    """
    part = int(rng.integers(400, 900)) if int(rng.integers(2)) else int(rng.integers(900, 1700))
    side = math.sqrt(thing.area) * 10_000 / part
    width = min(round(side * 1.155), WIDTH)
    height = width * 3 // 4
    x0, y0, x1, y1 = thing.box
    left = int(rng.integers(x1 - width + width // 16, x0 - width // 16 + 1))
    top = int(rng.integers(y1 - height + height // 16, y0 - height // 16 + 1))
    left, top = min(max(left, 0), WIDTH - width), min(max(top, 0), HEIGHT - height)
    return left, top, left + width, top + height


def _ordinary(thing: Thing, window: Box) -> bool:
    """Whether a thing lies wholly in a window and has a normal target's size there."""
    x0, y0, x1, y1 = thing.box
    if x0 < window[0] or y0 < window[1] or x1 > window[2] or y1 > window[3]:
        return False
    part = thing.area / ((window[2] - window[0]) * (window[3] - window[1]))
    # A margin of 2% leaves room for the rounding to whole pixels.
    return (NORMAL_SIDES[0] * 1.02) ** 2 <= part <= (NORMAL_SIDES[1] * 0.98) ** 2


def _collect(speak, numbers: list[int]) -> list[Expression]:
    found: list[Expression] = []
    for number in numbers:
        expression = speak(number)
        if expression is not None:
            found.append(expression)
            if len(found) == MOST_EXPRESSIONS:
                break
    return found


def records_of(task: tuple[Split, int]) -> list[Record]:
    """Records of picture ``number`` of a split; takes one argument, for pools of processes."""
    return make_picture(*task).records


def photo_of(task: tuple[Split, int]) -> tuple[str, tuple[int, int], bytes]:
    """File name, width and height, and JPEG of picture ``number`` of a split; for pools of processes."""
    picture = make_picture(*task, speak=False)
    return picture.name, picture.size, picture.jpeg()
