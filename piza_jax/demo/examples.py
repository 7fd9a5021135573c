"""Examples of the page: scenes of SOREC-mini, drawn from their seeds when the demo starts."""

from pathlib import Path
from typing import NamedTuple

from piza_jax.data.world.pictures import make_picture
from piza_jax.data.world.scene import HEIGHT, WIDTH
from piza_jax.data.world.splits import find_split
from piza_jax.piza.results import Box

SIZE_HW = (HEIGHT, WIDTH)
_SPLIT = "val"  # no model trained on SOREC-mini has seen it
_SCENES = (0, 1, 2, 4)


class Example(NamedTuple):
    """A photo file, what to look for in it, and where that is (xyxy photo pixels)."""

    path: Path
    sentence: str
    target: Box


def draw_examples(folder: Path, count: int = len(_SCENES)) -> list[Example]:
    """Draw the first ``count`` examples into a folder, one scene each; about half a second a scene."""
    examples = []
    for number in _SCENES[:count]:
        picture = make_picture(find_split(_SPLIT), number)
        record = min(picture.records, key=lambda one: len(one.expression))  # the shortest is the easiest to read
        path = folder / record.image
        path.write_bytes(picture.jpeg())
        examples.append(Example(path, record.expression, record.box_xyxy))
    return examples
