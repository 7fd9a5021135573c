"""Photos and expressions in, boxes in photo pixels out: batching around the compiled zoom and the single pass."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, overload

import jax
import numpy as np
from flax import nnx

from piza_jax.data.decode import Orientation
from piza_jax.data.pairs import Batch, batches, canvas_side, filled_rows, text_length
from piza_jax.data.photos import Photo, is_single, read_photo
from piza_jax.data.preprocess import Preprocessing, on_canvas
from piza_jax.data.tokenize import Tokenizer
from piza_jax.errors import PizaError
from piza_jax.ops.images import normalise
from piza_jax.piza.locate import locate
from piza_jax.piza.phrases import PhraseDetections, Text, check_thresholds, select, texts_of
from piza_jax.piza.placement import OneDevice, Placement
from piza_jax.piza.results import Alternative, Box, Grounding, Step, of_look, of_zoom
from piza_jax.piza.single_pass import SinglePass
from piza_jax.piza.zoom import ZoomConfig, ZoomModel, ZoomResult

__all__ = ["Alternative", "Box", "Grounder", "Grounding", "Photo", "Step"]


class Programs(NamedTuple):
    """What a grounder compiles to zoom, for an export."""

    state: nnx.State  # the weights
    encode: Callable[..., Any]  # state, input_ids int32 [B, L], token_mask bool [B, L] -> features of the text
    zoom: Callable[..., ZoomResult]  # state, photos uint8 [B, PH, PW, 3], photo_hw int32 [B, 2], features -> zooms
    parts: int  # devices that share each batch


class Grounder:
    """Finds what expressions name in photos of any size.

    ``ground`` gives the one box of a sentence, by a zoom or in a single pass; ``detect`` gives all boxes of phrases, in
    a single pass. Calls are cut into batches of 1, 2, 4 ... batch_size, the last one filled up, so that a program is
    compiled once for each of these sizes. Sentences are padded to a length that only grows, see
    data.pairs.TEXT_LENGTHS. Zooming, photos lie on a canvas that only grows, see data.pairs.PHOTO_SIDES; in a single
    pass each size of resized photos is compiled by itself, see single_pass.SinglePass.
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
        preprocessing: Preprocessing | None = None,
        single_pass: bool = False,
        canvas_multiple: int = 1,
        zero_shot: bool = False,
        placement: Placement | None = None,
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
            preprocessing: how the detector's own library shows it photos; by default resized to fit the zoom's canvas.
            single_pass: ``ground`` looks once at the whole photo, so prepared, instead of zooming.
            canvas_multiple: above 1, fewer sizes are compiled for single passes, see single_pass.SinglePass.
            zero_shot: the detector was trained for phrases and not for sentences; ``ground`` then warns once.
            placement: devices that share each batch, such as ``training.sharding.Spread``; by default one has it all.
                The boxes are the same; a batch is filled up until each device has as many rows.

        Raises:
            PizaError: a batch size, token limit or canvas_multiple below 1.
        """
        if batch_size < 1 or max_tokens < 1:
            raise PizaError(f"batch_size ({batch_size}) and max_tokens ({max_tokens}) must be at least 1")
        self.tokenizer, self.max_tokens, self.batch_size = tokenizer, max_tokens, batch_size
        self.zoom_config = config = zoom_config or ZoomConfig()
        self.orientation: Orientation = orientation
        self.photo_hw, self.text_length = (canvas_side(photo_hw[0]), canvas_side(photo_hw[1])), 1
        self.preprocessing = preprocessing = preprocessing or Preprocessing.for_canvas(config.canvas_hw)
        self.single_pass, self.zero_shot, self._warn = single_pass, zero_shot, zero_shot
        mean, std = (255 * np.array(values, np.float64) for values in (preprocessing.mean, preprocessing.std))
        self._to_input = to_input = partial(normalise, mean=mean, std=std)
        self._placement = placement = placement or OneDevice()
        graphdef, state = nnx.split(model)
        self._state = placement.model(state)
        self._look = SinglePass(model, preprocessing, to_input, batch_size, canvas_multiple, placement)

        def encode(state: Any, input_ids: jax.Array, token_mask: jax.Array) -> Any:
            return nnx.merge(graphdef, state, copy=True).encode_text(input_ids, token_mask)

        def run(state: Any, photos: jax.Array, photo_hw: jax.Array, text: Any) -> ZoomResult:
            return locate(nnx.merge(graphdef, state, copy=True), photos, photo_hw, text, config, to_input)

        self._encode, self._zoom = placement.compile(encode), placement.compile(run)

    def update(self, model: ZoomModel) -> None:
        """Take the weights of another model of the same configuration; what is compiled stays."""
        self._state = self._placement.model(nnx.state(model))

    def programs(self) -> Programs:
        """What is compiled to zoom."""
        return Programs(self._state, self._encode, self._zoom, self._placement.parts)

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
        many = not (is_single(images) and isinstance(expressions, str))
        texts = [expressions] if isinstance(expressions, str) else list(expressions)
        if self._warn:
            self._warn = False
            warnings.warn(
                "this detector was not trained to ground sentences: its best box may be of another noun than the one "
                "meant; detect() gives the boxes of every phrase",
                stacklevel=2,
            )
        found: list[Grounding] = []
        for batch in self._batches(images, texts):
            found += self._ground(batch)
        return found if many else found[0]

    def _ground(self, batch: Batch) -> list[Grounding]:
        if self.single_pass:
            looks = self._look(self._state, batch.photos, batch.input_ids, batch.token_mask)
            least = self.zoom_config.no_target_threshold
            return [of_look(*one, least) for one in zip(looks, batch.photos, batch.texts, strict=True)]
        result = self.run(batch.photos, batch.input_ids, batch.token_mask)
        return [of_zoom(result, row, text) for row, text in enumerate(batch.texts)]

    # As above.
    @overload
    def detect(  # type: ignore[overload-overlap]
        self,
        images: Photo,
        text: str,
        *,
        box_threshold: float = 0.25,
        text_threshold: float = 0.25,
        max_detections: int | None = None,
    ) -> PhraseDetections: ...

    @overload
    def detect(
        self,
        images: Sequence[Photo],
        text: Text,
        *,
        box_threshold: float = 0.25,
        text_threshold: float = 0.25,
        max_detections: int | None = None,
    ) -> list[PhraseDetections]: ...

    @overload
    def detect(
        self,
        images: Photo | Sequence[Photo],
        text: Text,
        *,
        box_threshold: float = 0.25,
        text_threshold: float = 0.25,
        max_detections: int | None = None,
    ) -> PhraseDetections | list[PhraseDetections]: ...

    def detect(
        self,
        images: Any,
        text: Any,
        *,
        box_threshold: float = 0.25,
        text_threshold: float = 0.25,
        max_detections: int | None = None,
    ) -> Any:
        """Find everything that phrases name, in a single pass, by the rules of GroundingDINO's processor.

        Args:
            images: a path, Pillow image or uint8 array [H, W, 3], or a sequence of them (or an array [N, H, W, 3]).
            text: phrases with full stops between them, "a cat. a remote control."; or a list of labels without full
                stops, ["a cat", "a remote control"], for the same; or a list of these: one for each image, or many for
                one image.
            box_threshold: least score of a box, 0..1.
            text_threshold: least score of a word in a label, 0..1.
            max_detections: most boxes of a photo, the best; None gives all.

        Returns:
            PhraseDetections where there are one image and one text, otherwise a list of them. A list of one image gives
            a list.

        Raises:
            PizaError: see ground; an empty label or a threshold outside 0..1.
        """
        check_thresholds(box_threshold, text_threshold, max_detections)
        texts = texts_of(text)
        found: list[PhraseDetections] = []
        for batch in self._batches(images, texts):
            looks = self._look(self._state, batch.photos, batch.input_ids, batch.token_mask)
            for look, photo, one, input_ids in zip(looks, batch.photos, batch.texts, batch.input_ids, strict=True):
                height, width = photo.shape[:2]
                limits = box_threshold, text_threshold, max_detections
                found.append(select(look, (height, width), one, input_ids, self.tokenizer.decode, *limits))
        return found[0] if is_single(images) and len(texts) == 1 else found

    def run(self, photos: Sequence[np.ndarray], input_ids: np.ndarray, token_mask: np.ndarray) -> ZoomResult:
        """One batch of at most batch_size photos uint8 [H, W, 3] and token ids [B, L]: the zooms, as NumPy arrays.

        Raises:
            PizaError: a photo larger than the largest canvas, or a score that is not finite.
        """
        canvas, photo_hw, text, _ = self._on_device(photos, input_ids, token_mask)
        result = self._placement.fetch(self._zoom(self._state, canvas, photo_hw, text))
        result = jax.tree.map(lambda array: array[: len(photos)], result)
        if not (np.isfinite(result.score).all() and np.isfinite(result.box).all()):
            raise PizaError("the model gave a score that is not finite; its weights are damaged or it diverged")
        return result

    def _on_device(
        self, photos: Sequence[np.ndarray], input_ids: np.ndarray, token_mask: np.ndarray
    ) -> tuple[Any, Any, Any, int]:
        """Photos on the canvas uint8 [R, PH, PW, 3], their (h, w) [R, 2], text features, and R, the number of rows."""
        rows = filled_rows(len(photos), self.batch_size, self._placement.parts)
        tokens = self._placement.batch((input_ids[rows], token_mask[rows]))
        canvas, photo_hw = self._placement.batch(self._on_canvas(photos, rows))
        return canvas, photo_hw, self._encode(self._state, *tokens), len(rows)

    def _on_canvas(self, photos: Sequence[np.ndarray], rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        height, width = (canvas_side(max(photo.shape[axis] for photo in photos)) for axis in (0, 1))
        self.photo_hw = (max(self.photo_hw[0], height), max(self.photo_hw[1], width))
        return on_canvas([photos[row] for row in rows], self.photo_hw)

    def read(self, image: Photo) -> np.ndarray:
        """Pixels of one image, uint8 [H, W, 3] RGB, in which its boxes count. PizaError if it cannot be read."""
        return read_photo(image, self.orientation)

    def _batches(self, images: Any, texts: list[str]) -> Iterator[Batch]:
        """Images and texts in pairs, at most batch_size at a time; either may be one for all."""

        def encode(text: str) -> tuple[np.ndarray, np.ndarray]:
            return self.tokenizer.encode(text, self.max_tokens)

        for batch in batches(images, texts, self.read, encode, self.batch_size):
            tokens = int(batch.token_mask.sum(1).max())
            self.text_length = length = max(self.text_length, text_length(tokens, self.max_tokens))
            yield batch._replace(input_ids=batch.input_ids[:, :length], token_mask=batch.token_mask[:, :length])
