"""Photos and expressions in, boxes in photo pixels out: batching around the compiled zoom."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import jax
import numpy as np
from flax import nnx
from PIL import Image, ImageOps

from piza_jax.data.decode import Orientation, _to_rgb, decode_rgb
from piza_jax.data.tokenize import Tokenizer
from piza_jax.errors import PizaError
from piza_jax.piza.zoom import ZoomConfig, ZoomModel, ZoomResult, zoom

Photo = str | os.PathLike[str] | Image.Image | np.ndarray
Box = tuple[float, float, float, float]

# Heights and widths that the photo canvas grows through; each growth compiles the zoom again, nothing else does.
PHOTO_SIDES = (512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384)


@dataclass(frozen=True)
class Step:
    """One step of a zoom; boxes are xyxy photo pixels.

    Attributes:
        crop: where the detector looked.
        box: what it found there.
        score: score of that box, 0..1.
        progress: how far the zoom had come at that crop, about 0 (whole photo) to 1 (on the target).
        stop_probability: that the box is final.
    """

    crop: Box
    box: Box
    score: float
    progress: float
    stop_probability: float


@dataclass(frozen=True)
class Grounding:
    """What a photo shows of an expression.

    Attributes:
        expression: the text as given.
        box: xyxy photo pixels, the last step's box.
        score: the last step's score, 0..1.
        steps: the zoom, from the whole photo on.
    """

    expression: str
    box: Box
    score: float
    steps: tuple[Step, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain dict, ready for JSON."""
        return asdict(self)


class Grounder:
    """Finds what expressions name in photos of any size.

    Calls are cut into batches of 1, 2, 4 ... batch_size, the last one filled up, so that a program is compiled once for
    each of these sizes. Photos lie on a canvas that only grows, see PHOTO_SIDES.
    """

    def __init__(
        self,
        model: ZoomModel,
        tokenizer: Tokenizer,
        zoom_config: ZoomConfig | None = None,
        max_tokens: int = 256,
        *,
        batch_size: int = 8,
        photo_hw: tuple[int, int] = (1, 1),
        orientation: Orientation = "stored",
    ):
        """Wrap a model.

        Args:
            model: an nnx.Module with encode_text, detect and (mode "piza") read_history; see PizaDetector.
            tokenizer: makes the token ids of the expressions.
            zoom_config: how to zoom.
            max_tokens: length L of the token ids; a longer expression is an error.
            batch_size: most photos in one run of the device.
            photo_hw: smallest photo canvas; the size of the largest photo, if it is known, saves growing to it.
            orientation: "stored", or "upright" to turn photos as their EXIF tag says; boxes count in those pixels.

        Raises:
            PizaError: a batch size or token limit below 1.
        """
        if batch_size < 1 or max_tokens < 1:
            raise PizaError(f"batch_size ({batch_size}) and max_tokens ({max_tokens}) must be at least 1")
        self.tokenizer, self.max_tokens, self.batch_size = tokenizer, max_tokens, batch_size
        self.zoom_config = config = zoom_config or ZoomConfig()
        self.orientation: Orientation = orientation
        self.photo_hw = (_canvas_side(photo_hw[0]), _canvas_side(photo_hw[1]))
        graphdef, self._state = nnx.split(model)

        def encode(state: Any, input_ids: jax.Array, token_mask: jax.Array) -> Any:
            return nnx.merge(graphdef, state, copy=True).encode_text(input_ids, token_mask)

        def run(state: Any, photos: jax.Array, photo_hw: jax.Array, text: Any) -> ZoomResult:
            return zoom(nnx.merge(graphdef, state, copy=True), photos, photo_hw, text, config)

        self._encode, self._zoom = jax.jit(encode), jax.jit(run)

    def update(self, model: ZoomModel) -> None:
        """Take the weights of another model of the same configuration; what is compiled stays."""
        self._state = nnx.state(model)

    # A path is a Photo and a str, which is why mypy sees an overlap.
    @overload
    def ground(self, images: Photo, expressions: str) -> Grounding: ...  # type: ignore[overload-overlap]

    @overload
    def ground(self, images: Sequence[Photo], expressions: str | Sequence[str]) -> list[Grounding]: ...

    @overload
    def ground(self, images: Photo | Sequence[Photo], expressions: Sequence[str]) -> list[Grounding]: ...

    def ground(self, images: Any, expressions: Any) -> Grounding | list[Grounding]:
        """Find what each expression names.

        Args:
            images: a path, Pillow image or uint8 array [H, W, 3], or a sequence of them (or an array [N, H, W, 3]).
            expressions: a sentence, or a sequence of them: one for each image, or many for one image; one sentence
                serves all images.

        Returns:
            One Grounding where both arguments are single, otherwise a list of them.

        Raises:
            PizaError: an image that is missing, damaged or of another kind; an empty or too long expression; numbers of
                images and expressions that do not match; a model that gives no finite score.
        """
        many = not (_is_single(images) and isinstance(expressions, str))
        photos = [images] if _is_single(images) else list(images)
        texts = [expressions] if isinstance(expressions, str) else list(expressions)
        count = max(len(photos), len(texts))
        if not photos or not texts or len(photos) not in (1, count) or len(texts) not in (1, count):
            raise PizaError(
                f"{len(photos)} images and {len(texts)} expressions do not match; "
                "give as many of each, or one of either for all"
            )
        tokens = [self.tokenizer.encode(text, self.max_tokens) for text in texts]  # before any work on photos
        read = lru_cache(maxsize=1)(lambda index: self.read(photos[index]))
        found: list[Grounding] = []
        for start in range(0, count, self.batch_size):
            indices = range(start, min(start + self.batch_size, count))
            pixels = [read(i if len(photos) > 1 else 0) for i in indices]
            chosen = [i if len(texts) > 1 else 0 for i in indices]
            result = self.run(pixels, *(np.stack(part) for part in zip(*(tokens[i] for i in chosen), strict=True)))
            found += [self._grounding(result, row, texts[i]) for row, i in enumerate(chosen)]
        return found if many else found[0]

    def run(self, photos: Sequence[np.ndarray], input_ids: np.ndarray, token_mask: np.ndarray) -> ZoomResult:
        """One batch of at most batch_size photos uint8 [H, W, 3] and token ids [B, L]: the zooms, as NumPy arrays.

        Raises:
            PizaError: a photo larger than the largest canvas, or a score that is not finite.
        """
        count = len(photos)
        size = min(1 << (count - 1).bit_length(), self.batch_size)
        rows = [min(i, count - 1) for i in range(size)]  # the last one again where the batch is not full
        largest = np.max([photo.shape[:2] for photo in photos], axis=0)
        rows_needed, columns_needed = (_canvas_side(int(side)) for side in largest)
        self.photo_hw = (max(self.photo_hw[0], rows_needed), max(self.photo_hw[1], columns_needed))
        canvas = np.zeros((size, *self.photo_hw, 3), np.uint8)
        for row, i in enumerate(rows):
            canvas[row, : photos[i].shape[0], : photos[i].shape[1]] = photos[i]
        photo_hw = np.array([photos[i].shape[:2] for i in rows], np.int32)
        text = self._encode(self._state, input_ids[rows], token_mask[rows])
        result = jax.device_get(self._zoom(self._state, canvas, photo_hw, text))
        result = jax.tree.map(lambda array: array[:count], result)
        if not (np.isfinite(result.score).all() and np.isfinite(result.box).all()):
            raise PizaError("the model gave a score that is not finite; its weights are damaged or it diverged")
        return result

    def read(self, image: Photo) -> np.ndarray:
        """Pixels of one image, uint8 [H, W, 3] RGB, in which its boxes count. PizaError if it cannot be read."""
        if isinstance(image, (str, os.PathLike)):
            try:
                data = Path(image).read_bytes()
            except OSError as error:
                raise PizaError(f"cannot read the photo {os.fspath(image)}: {error.strerror or error}") from error
            return decode_rgb(data, os.fspath(image), self.orientation)
        if isinstance(image, Image.Image):
            try:
                turned = ImageOps.exif_transpose(image) if self.orientation == "upright" else image
                return np.asarray(_to_rgb(turned, "given"))
            except (OSError, SyntaxError, ValueError) as error:
                raise PizaError(f"the Pillow image cannot be decoded: {error}") from error
        if not hasattr(image, "dtype"):
            kind = type(image).__name__
        elif image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size:
            return np.asarray(image)
        else:
            kind = f"an array {image.dtype} {list(image.shape)}"
        raise PizaError(f"a photo must be a path, a Pillow image or a uint8 array [H, W, 3], not {kind}")

    def _grounding(self, result: ZoomResult, row: int, expression: str) -> Grounding:
        steps = tuple(
            Step(
                _box(result.crops[row, t]), _box(result.boxes[row, t]), *(float(values[row, t]) for values in readings)
            )
            for readings in [(result.scores, result.progress, result.stop_probability)]
            for t in range(int(result.num_steps[row]))
        )
        return Grounding(expression, _box(result.box[row]), float(result.score[row]), steps)


def _is_single(images: Any) -> bool:
    if isinstance(images, (str, os.PathLike, Image.Image)):
        return True
    return hasattr(images, "ndim") and images.ndim != 4


def _canvas_side(side: int) -> int:
    for allowed in PHOTO_SIDES:
        if side <= allowed:
            return allowed
    raise PizaError(f"a photo side of {side} pixels is above the limit of {PHOTO_SIDES[-1]}; cut or shrink the photo")


def _box(corners: Any) -> Box:
    x0, y0, x1, y1 = (float(value) for value in corners)
    return x0, y0, x1, y1
