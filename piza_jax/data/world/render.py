"""From a scene, or a window of it, to a picture: only integers and Pillow's own drawing, the same everywhere."""

from PIL import Image

from piza_jax.data.world.backdrop import draw_backdrop, draw_shadows
from piza_jax.data.world.kinds import SMALL
from piza_jax.data.world.large_things import draw_large
from piza_jax.data.world.pen import Pen
from piza_jax.data.world.scene import HEIGHT, WIDTH, Box, Scene, Thing
from piza_jax.data.world.small_things import draw_small


def render(scene: Scene, window: Box = (0, 0, WIDTH, HEIGHT), size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    """Draw what lies in a window of the scene.

    Args:
        scene: what there is.
        window: x0, y0, x1, y1 in the scene's pixels.
        size: width and height of the picture; of the window's shape, or things are stretched.

    Returns:
        RGB image.
    """
    image = Image.new("RGB", size, scene.street.sky)

    def at(x: int, y: int) -> tuple[int, int]:
        return place((x, y, x, y), window, size)[:2]

    draw_backdrop(image, scene.street, at)
    draw_shadows(image, scene, at)
    for thing in scene.things:
        draw_thing(image, thing, place(thing.box, window, size))
    table = [min(level * percent // 100, 255) for percent in scene.street.tint for level in range(256)]
    return image.point(table) if scene.street.tint != (100, 100, 100) else image


def place(box: Box, window: Box, size: tuple[int, int]) -> Box:
    """Where a box of the scene lies in a picture of a window, in whole pixels of the picture."""
    across, down = window[2] - window[0], window[3] - window[1]
    x0, x1 = (((x - window[0]) * size[0] * 2 + across) // (2 * across) for x in (box[0], box[2]))
    y0, y1 = (((y - window[1]) * size[1] * 2 + down) // (2 * down) for y in (box[1], box[3]))
    return x0, y0, x1, y1


def draw_thing(image: Image.Image, thing: Thing, box: Box) -> None:
    """Draw a thing into a box of an image, which it fills from side to side; what lies outside is cut off."""
    width, height = box[2] - box[0], box[3] - box[1]
    seen = max(box[0], 0), max(box[1], 0), min(box[2], image.width), min(box[3], image.height)
    if width < 1 or height < 1 or seen[0] >= seen[2] or seen[1] >= seen[3]:
        return
    # Small things are drawn four times larger and shrunk, which smooths their edges; large ones need less.
    factor = 1 if thing.kind in ("house", "tower", "pole") and width * height > 1600 else 2 if thing.large else 4
    patch = image.crop(box).resize((width * factor, height * factor), Image.Resampling.NEAREST)
    pen = Pen(patch, max(factor * (1 + max(width, height) // 120), 2), thing.flip)
    if thing.kind in SMALL:
        draw_small(pen, thing.kind, thing.colour, thing.detail)
    else:
        band = thing.band[0] / 1000, thing.band[1] / 1000
        draw_large(pen, thing.kind, thing.colour, thing.view, band, thing.style)
    patch = patch.reduce(factor) if factor > 1 else patch
    part = patch.crop((seen[0] - box[0], seen[1] - box[1], seen[2] - box[0], seen[3] - box[1]))
    image.paste(part, seen[:2])
