"""All boxes of a photo in one picture, each with its label and score."""

import numpy as np
from PIL import Image, ImageDraw

from piza_jax.draw import _HALO, FOUND, _font, _image, _printable, _rectangle
from piza_jax.piza.phrases import PhraseDetections


def with_boxes(photo: Image.Image | np.ndarray, found: PhraseDetections) -> Image.Image:
    """The photo with the boxes found in it; the best are drawn last, over the others.

    Args:
        photo: RGB Pillow image or uint8 [H, W, 3], in whose pixels the boxes count.
        found: what ``Grounder.detect`` gave for it. Parts of boxes outside the photo are not drawn.

    Returns:
        An RGB image of the photo's size.

    Raises:
        PizaError: a photo that is no image.
    """
    picture = _image(photo).copy()
    pen = ImageDraw.Draw(picture)
    stroke, font = max(round(max(picture.size) / 500), 2), _font(max(round(max(picture.size) / 60), 12))
    for index in np.argsort(found.scores, kind="stable"):
        box = [float(side) for side in found.boxes[index]]
        _rectangle(pen, box, picture.size, stroke, dashed=False)
        text = f"{_printable(found.labels[index])} {found.scores[index]:.2f}".strip()
        width, height = round(font.getlength(text)) + 2 * stroke, round(1.3 * font.size)
        left = min(max(round(box[0]) - stroke, 0), max(picture.width - width, 0))
        top = round(box[1]) - stroke - height
        if top < 0:  # no room above the box: inside it
            top = max(round(box[1]), 0) + stroke
        pen.rectangle((left, top, left + width, top + height), fill=FOUND, outline=_HALO)
        pen.text((left + stroke, top + height / 2), text, fill=_HALO, font=font, anchor="lm")
    return picture
