"""Grounding in slices of a photo, to compare the zoom with: tile grids and sliding windows under the same detector.

Everything that the zoom has, the slices have: pixels cut on the device from the photo at full resolution, the zoom's
canvas, the text encoded once for each expression, batches, and one compiled program.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from piza_jax.data.pairs import Batch
from piza_jax.data.tokenize import Tokenizer
from piza_jax.errors import PizaError
from piza_jax.evaluation.methods import Slicing
from piza_jax.ops.crop import crop_resize
from piza_jax.ops.nms import Kept, keep_best
from piza_jax.piza.boxes import box_in_photo
from piza_jax.piza.grounding import Grounder
from piza_jax.piza.results import Box, Grounding, Step
from piza_jax.piza.zoom import ZoomConfig, ZoomModel

# Best queries of each slice that take part in the merging.
PER_SLICE = 50


class _Jobs(NamedTuple):
    """Slices to look at, in C chunks of K."""

    photo: np.ndarray | jax.Array  # int32 [C, K], row of the photo in the batch
    box: np.ndarray | jax.Array  # float32 [C, K, 4], xyxy photo pixels
    valid: np.ndarray | jax.Array  # bool [C, K], False fills the last chunks up


class Ranking(NamedTuple):
    """Boxes of a photo after merging, best first; R of them."""

    boxes: np.ndarray  # float32 [R, 4], xyxy photo pixels
    scores: np.ndarray  # float32 [R], 0..1
    slices: np.ndarray  # float32 [R, 4], where each was seen, xyxy photo pixels
    passes: int  # slices that the detector saw


class SliceGrounder(Grounder):
    """Finds what expressions name by looking at every slice of a photo; used like a Grounder.

    A PIZA model looks as in a single pass, without the embedding of the progress. The slices of a whole batch are seen
    in chunks, so that memory is bounded whatever their number; the number of chunks is rounded up to a power of two, to
    compile seldom, and chunks without a slice cost nothing.
    """

    def __init__(
        self,
        model: ZoomModel,
        tokenizer: Tokenizer,
        slicing: Slicing,
        zoom_config: ZoomConfig | None = None,
        max_tokens: int = 256,
        *,
        chunk: int | None = None,
        num_ranked: int = 10,
        **options: Any,
    ):
        """Wrap a model.

        Args:
            model: an nnx.Module with encode_text and detect.
            tokenizer: makes the token ids of the expressions.
            slicing: where to cut, and how to merge.
            zoom_config: its canvas is what slices are resized to, its crop_method how.
            max_tokens: length L of the token ids.
            chunk: slices in one run of the detector; by default the batch size.
            num_ranked: most boxes that ``rank`` gives.
            options: of Grounder, such as batch_size.

        Raises:
            PizaError: see Grounder; a chunk or num_ranked below 1.
        """
        super().__init__(model, tokenizer, zoom_config, max_tokens, **options)
        self.slicing, self.chunk = slicing, self.batch_size if chunk is None else chunk
        if self.chunk < 1 or num_ranked < 1:
            raise PizaError(f"chunk ({self.chunk}) and num_ranked ({num_ranked}) must be at least 1")
        graphdef, config, to_input = nnx.graphdef(model), self.zoom_config, self._to_input

        @jax.jit  # traced once for the two calls below
        def look(state: Any, photos: jax.Array, photo_hw: jax.Array, text: Any, jobs: _Jobs) -> tuple[jax.Array, ...]:
            """Best boxes [K, P, 4] of a chunk and their logits [K, P]."""

            def view(job: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
                photo, box = job
                one = photos[photo][None], photo_hw[photo][None], box[None]
                pixels, valid_hw = crop_resize(*one, config.canvas_hw, config.crop_method)
                return pixels[0], valid_hw[0]

            views, valid_hw = jax.lax.map(view, (jobs.photo, jobs.box))
            own_text = jax.tree.map(lambda part: part[jobs.photo], text)
            # A model inside a map must be a copy, or its variables belong to the outer trace.
            inner = nnx.merge(graphdef, state, copy=True)
            detections = inner.detect(to_input(views, valid_hw), valid_hw, own_text, None)
            logits = jnp.max(detections.logits[-1], axis=-1).astype(jnp.float32)  # [K, Q]
            logits, index = jax.lax.top_k(logits, min(PER_SLICE, logits.shape[1]))
            boxes = jnp.take_along_axis(detections.boxes[-1].astype(jnp.float32), index[..., None], axis=1)
            rows = (
                jnp.repeat(jobs.box, index.shape[1], axis=0),
                jnp.repeat(photo_hw[jobs.photo], index.shape[1], axis=0),
            )
            return box_in_photo(boxes.reshape(-1, 4), *rows).reshape(boxes.shape), logits

        def run(state: Any, photos: jax.Array, photo_hw: jax.Array, text: Any, jobs: _Jobs) -> tuple[Any, ...]:
            def chunk(part: _Jobs) -> tuple[jax.Array, ...]:
                operands = state, photos, photo_hw, text, part

                def skip(*_: Any) -> tuple[jax.Array, ...]:
                    return tuple(jnp.zeros(like.shape, like.dtype) for like in jax.eval_shape(look, *operands))

                return jax.lax.cond(jnp.any(part.valid), look, skip, *operands)

            boxes, logits = jax.lax.map(chunk, jobs)  # [C, K, P, 4], [C, K, P]
            flat_boxes, flat_logits = boxes.reshape(-1, 4), logits.reshape(-1)

            def merge(photo: jax.Array) -> Kept:
                mine = jobs.valid & (jobs.photo == photo)
                valid = jnp.broadcast_to(mine[..., None], logits.shape).reshape(-1)
                return _merge(flat_boxes, flat_logits, valid, slicing, num_ranked)

            kept = jax.vmap(merge)(jnp.arange(photos.shape[0]))
            seen_in = jobs.box.reshape(-1, 4)[kept.source // logits.shape[2]]
            finite = jnp.isfinite(logits) & jnp.all(jnp.isfinite(boxes), axis=-1)
            good = jnp.all(finite | ~jobs.valid[..., None])
            return kept, seen_in, jnp.broadcast_to(good, photos.shape[:1])

        self._slices = self._placement.compile(run)

    def rank(self, images: Any, expressions: str | Sequence[str]) -> list[Ranking]:
        """The boxes that are left after merging, best first, at most num_ranked of each photo.

        Args and errors are those of ``ground``.
        """
        texts = [expressions] if isinstance(expressions, str) else list(expressions)
        return [one for batch in self._batches(images, texts) for one in self._rank(batch)]

    def _ground(self, batch: Batch) -> list[Grounding]:
        return [_grounding(one, text) for one, text in zip(self._rank(batch), batch.texts, strict=True)]

    def _rank(self, batch: Batch) -> list[Ranking]:
        canvas, photo_hw, text, rows = self._on_device(batch.photos, batch.input_ids, batch.token_mask)
        cut = [self.slicing.boxes((photo.shape[1], photo.shape[0])) for photo in batch.photos]
        jobs = self._placement.batch(_jobs_of(cut, self.chunk, rows // self._placement.parts, self._placement.parts))
        kept, seen_in, finite = self._placement.fetch(self._slices(self._state, canvas, photo_hw, text, jobs))
        if not finite.all():
            raise PizaError("the model gave a score that is not finite; its weights are damaged or it diverged")
        return [
            Ranking(kept.boxes[row][valid], kept.scores[row][valid], seen_in[row][valid], len(cut[row]))
            for row, valid in enumerate(kept.valid[: len(cut)])
        ]


def _jobs_of(cut: Sequence[np.ndarray], chunk: int, each: int, parts: int) -> _Jobs:
    """Slices of all photos one after the other, the last one again where the chunks are not full.

    The batch is split in parts of so many photos each; every part has the same number of chunks, and counts its own
    photos from 0.
    """
    owned = [list(cut[part * each : (part + 1) * each]) for part in range(parts)]
    most = max(sum(map(len, boxes)) for boxes in owned)
    width = min(chunk, 1 << (most - 1).bit_length())
    chunks = 1 << (-(-most // width) - 1).bit_length()
    jobs = []
    for boxes in owned:
        count = sum(map(len, boxes))
        boxes = boxes or [cut[-1]]  # a part of copies of the last photo alone: nothing of it counts
        photo = np.repeat(np.arange(len(boxes), dtype=np.int32), [len(one) for one in boxes])
        place = np.minimum(np.arange(chunks * width), len(photo) - 1).reshape(chunks, width)
        valid = np.arange(chunks * width).reshape(chunks, width) < count
        jobs.append(_Jobs(photo[place], np.concatenate(boxes).astype(np.float32)[place], valid))
    return _Jobs(*map(np.concatenate, zip(*jobs, strict=True)))


def _merge(boxes: jax.Array, logits: jax.Array, valid: jax.Array, slicing: Slicing, limit: int) -> Kept:
    """One photo's boxes [N, 4], ranked by their logits [N], which become scores 0..1."""
    threshold = float("inf")  # by score alone: none matches
    if slicing.merging != "score":
        threshold = slicing.threshold
        best = jnp.max(jnp.where(valid, logits, -jnp.inf))
        valid &= (jax.nn.sigmoid(logits) >= slicing.min_score) | (logits == best)
    merged = slicing.merging == "nmm"
    kept = keep_best(boxes, logits, valid, limit, threshold=threshold, metric=slicing.metric, merge=merged)
    return kept._replace(scores=jax.nn.sigmoid(kept.scores))


def _grounding(ranking: Ranking, expression: str) -> Grounding:
    box, crop = _box(ranking.boxes[0]), _box(ranking.slices[0])
    score = float(ranking.scores[0])
    step = Step(crop, box, score, progress=0.0, stop_probability=1.0)
    return Grounding(expression, box, score, (step,), path_score=score, passes=ranking.passes)


def _box(corners: np.ndarray) -> Box:
    x0, y0, x1, y1 = map(float, corners)
    return x0, y0, x1, y1
