"""Views: a box of a photo, resized onto a static canvas, and the way of boxes between the two.

All views have the canvas's shape, so nothing recompiles. The content keeps its aspect and lies in the top left corner;
the rest is zero and masked. Pixels are Pillow's antialiased bilinear resize, as in the reference; the geometry is
computed in float32, as the device's own crop does it.
"""

import math

import numpy as np
from PIL import Image

from piza_jax.data.decode import FACTORS, Decoded
from piza_jax.errors import PizaError

# A photo decoded at a part of its resolution is still this much larger than its view. From 1 on the resize only shrinks
# it, but photos' views are then up to 1.6 of 255 from exact in the mean, at 1.5 up to 0.6 (docs/input_pipeline.md).
DECODE_MARGIN = 1.5


def content_hw(box_xyxy: np.ndarray, canvas_hw: tuple[int, int], content_scale: float = 1.0) -> tuple[int, int]:
    """Height and width of the content that a box of a photo has on a canvas.

    Args:
        box_xyxy: [4] in photo pixels.
        canvas_hw: height and width of the canvas.
        content_scale: size relative to the largest that fits.
    """
    box = np.asarray(box_xyxy, np.float32)
    width, height = box[2] - box[0], box[3] - box[1]
    scale = np.float32(content_scale) * min(np.float32(canvas_hw[1]) / width, np.float32(canvas_hw[0]) / height)
    return _whole(height * scale, canvas_hw[0]), _whole(width * scale, canvas_hw[1])


def view_needs(
    box_xyxy: np.ndarray, canvas_hw: tuple[int, int], content_scale: float, photo_wh: tuple[int, int]
) -> tuple[int, int]:
    """How much of a photo has to be decoded for a view of it.

    Args:
        box_xyxy: [4] in photo pixels, inside the photo.
        canvas_hw: height and width of the canvas.
        content_scale: size relative to the largest that fits.
        photo_wh: width and height of the photo.

    Returns:
        The factor of decode.open_part, at which the photo is still DECODE_MARGIN times as large as the view or, where
        that is none but 1, whole; and the photo rows, from the top, that the view's filter reads.
    """
    height, width = content_hw(box_xyxy, canvas_hw, content_scale)
    x0, y0, x1, y1 = (float(edge) for edge in box_xyxy)
    reduction = min((x1 - x0) / width, (y1 - y0) / height)
    factor = next(factor for factor in FACTORS if factor == 1 or reduction >= DECODE_MARGIN * factor)
    reach = max((y1 - y0) / height, 1.0)  # of the triangle filter beyond the box
    return factor, min(math.ceil(y1 + reach) + 2 * factor, photo_wh[1])


def make_view(
    photo: np.ndarray | Image.Image | Decoded,
    box_xyxy: np.ndarray,
    canvas_hw: tuple[int, int],
    content_scale: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Resize a box of a photo onto a canvas.

    At the box's edges the filter reads the photo around the box, as far as it reaches; nothing is cut off first.

    Args:
        photo: uint8 [H, W, 3] RGB, or an RGB Pillow image, or a part of one that holds what view_needs says.
        box_xyxy: [4] float photo pixels, inside the photo; parts of pixels count.
        canvas_hw: height and width of the canvas.
        content_scale: in (0, 1]; below 1 the content is smaller than it could be (a training augmentation).

    Returns:
        canvas uint8 [H, W, 3], zero outside the content; valid_hw int32 [2], height and width of the content.

    Raises:
        PizaError: the box has no area or leaves the photo.
    """
    if not isinstance(photo, Decoded):
        image = photo if isinstance(photo, Image.Image) else Image.fromarray(photo)
        photo = Decoded(image, image.size, 1, image.height)
    box = np.asarray(box_xyxy, np.float32)
    inside = 0 <= box[0] < box[2] <= photo.size[0] and 0 <= box[1] < box[3] <= photo.size[1]
    if not inside:
        raise PizaError(
            f"cannot view box {box.tolist()} (xyxy pixels) of a photo of {photo.size[0]} x {photo.size[1]}: "
            "it must have an area and lie inside the photo"
        )
    height, width = content_hw(box, canvas_hw, content_scale)
    x0, y0, x1, y1 = (float(edge) / photo.factor for edge in box)
    content = photo.image.resize((width, height), Image.Resampling.BILINEAR, box=(x0, y0, x1, y1))
    canvas = np.zeros((*canvas_hw, 3), np.uint8)
    canvas[:height, :width] = np.asarray(content)
    return canvas, np.array([height, width], np.int32)


def photo_to_view(boxes_xyxy: np.ndarray, view_xyxy: np.ndarray) -> np.ndarray:
    """Boxes [..., 4] xyxy photo pixels -> float32 [..., 4] cxcywh, where 0..1 spans the view's content.

    Parts outside the view stay outside 0..1; clip the boxes to the view first where that matters.
    """
    boxes, low, size = _frame(boxes_xyxy, view_xyxy)
    corners = (boxes.reshape(*boxes.shape[:-1], 2, 2) - low) / size
    lower, upper = corners[..., 0, :], corners[..., 1, :]
    return np.concatenate([(lower + upper) / 2, upper - lower], axis=-1).astype(np.float32)


def view_to_photo(boxes_cxcywh: np.ndarray, view_xyxy: np.ndarray) -> np.ndarray:
    """Boxes [..., 4] cxcywh in 0..1 of the view's content -> float32 [..., 4] xyxy photo pixels."""
    boxes, low, size = _frame(boxes_cxcywh, view_xyxy)
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    lower, upper = low + (centre - half) * size, low + (centre + half) * size
    return np.concatenate([lower, upper], axis=-1).astype(np.float32)


def _frame(boxes: np.ndarray, view_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    view = np.asarray(view_xyxy, np.float64)
    return np.asarray(boxes, np.float64), view[:2], view[2:] - view[:2]


def _whole(length: np.float32, limit: int) -> int:
    return int(np.clip(np.floor(length + np.float32(0.5)), 1, limit))
