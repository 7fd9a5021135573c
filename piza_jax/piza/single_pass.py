"""One look at each whole photo, in the view of the library that the detector comes from.

Swin sees the pixels around a photo's content, so padding changes the boxes. A canvas here has the size of the resized
photo itself, and only photos of one resized size share a run: a photo has the same boxes alone and in any batch. (The
source pads a batch to its largest photo, so there they change with the batch; its results for single photos are ours.)

Each size of canvas, and each batch size 1, 2, 4 ... of it, is compiled once and stays in memory. Where photos have many
aspects, ``canvas_multiple`` rounds sides up and bounds the number; the zeros then added change results slightly.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from piza_jax.data.pairs import filled_rows
from piza_jax.data.preprocess import Preprocessing, on_canvas
from piza_jax.errors import PizaError
from piza_jax.piza.boxes import best_box, box_in_photo
from piza_jax.piza.placement import OneDevice, Placement
from piza_jax.piza.zoom import Normalise, ZoomModel

MANY_SIZES = 32


class Look(NamedTuple):
    """What the detector says of a photo, in its last layer; Q queries, L tokens."""

    logits: np.ndarray  # float32 [Q, L], -inf on padding tokens
    boxes: np.ndarray  # float32 [Q, 4], cxcywh in 0..1 of the photo
    box: np.ndarray  # float32 [4], of the query whose best token scores highest, xyxy photo pixels inside the photo
    score: np.ndarray  # float32 [], that token's score in 0..1


class SinglePass:
    """Runs a detector once on each photo."""

    def __init__(
        self,
        model: ZoomModel,
        preprocessing: Preprocessing,
        normalise: Normalise,
        batch_size: int,
        canvas_multiple: int = 1,
        placement: Placement | None = None,
    ):
        """Wrap a model's structure; its weights come with each call.

        Args:
            model: an nnx.Module with encode_text and detect.
            preprocessing: how photos are resized.
            normalise: makes the detector's input of a view.
            batch_size: most photos in one run of the device.
            canvas_multiple: sides of the canvas are rounded up to multiples of this many pixels.
            placement: devices that share each run; by default one has it all.

        Raises:
            PizaError: a canvas_multiple below 1.
        """
        if canvas_multiple < 1:
            raise PizaError(f"canvas_multiple is {canvas_multiple}; it must be at least 1 pixel")
        self.preprocessing, self.batch_size, self.canvas_multiple = preprocessing, batch_size, canvas_multiple
        self._placement = placement or OneDevice()
        self._canvases: set[tuple[int, int]] = set()
        graphdef = nnx.graphdef(model)

        def run(
            state: Any,
            views: jax.Array,
            valid_hw: jax.Array,
            photo_hw: jax.Array,
            input_ids: jax.Array,
            token_mask: jax.Array,
        ) -> tuple[jax.Array, ...]:
            model = nnx.merge(graphdef, state, copy=True)
            text = model.encode_text(input_ids, token_mask)
            detections = model.detect(normalise(views, valid_hw), valid_hw, text, None)
            logits, boxes = detections.logits[-1], detections.boxes[-1].astype(jnp.float32)
            best, score = best_box(logits, boxes)
            photo_wh = photo_hw[:, ::-1].astype(jnp.float32)
            whole = jnp.concatenate([jnp.zeros_like(photo_wh), photo_wh], axis=1)
            return logits, boxes, box_in_photo(best, whole, photo_hw), score

        self._run = self._placement.compile(run)

    def __call__(
        self, state: Any, photos: Sequence[np.ndarray], input_ids: np.ndarray, token_mask: np.ndarray
    ) -> list[Look]:
        """Look at photos.

        Args:
            state: the model's weights, as nnx.split gives them.
            photos: B photos uint8 [H, W, 3], at most batch_size.
            input_ids: int32 [B, L].
            token_mask: bool [B, L].

        Returns:
            A Look for each photo.

        Raises:
            PizaError: a photo that is too thin, or a score that is not finite.
        """
        distinct = {id(photo): photo for photo in photos}  # one photo with many texts is resized once
        resized = {key: self.preprocessing.view(photo)[0] for key, photo in distinct.items()}
        views = [resized[id(photo)] for photo in photos]
        groups: dict[tuple[int, int], list[int]] = {}
        for index, view in enumerate(views):
            groups.setdefault(self._canvas_of(view), []).append(index)
        looks: dict[int, Look] = {}
        for canvas_hw, members in groups.items():
            self._count(canvas_hw)
            rows = [members[row] for row in filled_rows(len(members), self.batch_size, self._placement.parts)]
            canvas, valid_hw = on_canvas([views[row] for row in rows], canvas_hw)
            photo_hw = np.array([photos[row].shape[:2] for row in rows], np.int32)
            arrays = self._placement.batch((canvas, valid_hw, photo_hw, input_ids[rows], token_mask[rows]))
            found = self._placement.fetch(self._run(state, *arrays))
            if not all(np.isfinite(part).all() for part in found[1:]):
                raise PizaError("the model gave a score that is not finite; its weights are damaged or it diverged")
            for place, index in enumerate(members):
                looks[index] = Look(*(part[place] for part in found))
        return [looks[index] for index in range(len(photos))]

    def _canvas_of(self, view: np.ndarray) -> tuple[int, int]:
        height, width = (-(-side // self.canvas_multiple) * self.canvas_multiple for side in view.shape[:2])
        return height, width

    def _count(self, canvas_hw: tuple[int, int]) -> None:
        self._canvases.add(canvas_hw)
        if len(self._canvases) == MANY_SIZES + 1 and self.canvas_multiple == 1:
            warnings.warn(
                f"more than {MANY_SIZES} sizes of photos: each is compiled and kept; canvas_multiple=32 makes fewer of "
                "them, for slightly other boxes",
                stacklevel=5,
            )
