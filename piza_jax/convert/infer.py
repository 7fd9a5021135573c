"""Sizes of a detector from the shapes of a file's tensors, for releases that carry no configuration that we could read.

What shapes do not tell is assumed as the releases have it: 32 channels for each head of the image attention, half as
many heads in the text layers and in the fusion, 64 channels for each head of BERT. The heads can be given instead.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from piza_jax.convert.names import NameMap
from piza_jax.errors import PizaError
from piza_jax.models.config import BertConfig, DetectorConfig, SwinConfig

_HEAD_WIDTH, _BERT_HEAD_WIDTH = 32, 64
_STAGE = "detector/backbone/stages/{}/blocks/"


class Shapes:
    """Foreign shapes, looked up by our names."""

    def __init__(self, shapes: Mapping[str, Sequence[int]], names: NameMap):
        self._shapes, self._names = shapes, names
        self.sizes: dict[str, int] = {}

    def _theirs(self, ours: str) -> str:
        return self._names.source_of(ours, self.sizes).names[0]

    def has(self, ours: str) -> bool:
        """Whether the file holds our parameter ``ours``."""
        return self._theirs(ours) in self._shapes

    def get(self, ours: str, rank: int) -> tuple[int, ...]:
        """Foreign shape, such as [outputs, inputs], of our parameter ``ours``.

        Raises:
            PizaError: it is absent or has another rank.
        """
        theirs = self._theirs(ours)
        if theirs not in self._shapes:
            held = ", ".join(sorted(self._shapes)[:4]) or "nothing"
            raise PizaError(
                f"the checkpoint holds no tensor {theirs}, so it is not of {self._names.label}; it begins with {held}"
            )
        shape = tuple(self._shapes[theirs])
        if len(shape) != rank:
            raise PizaError(f"the tensor {theirs} has the shape {list(shape)}, not one of {rank} axes")
        return shape

    def count(self, ours: str) -> int:
        """How many indices from 0 on the pattern ``ours`` can be filled with."""
        index = 0
        while self.has(ours.format(index)):
            index += 1
        return index


def _quotient(whole: int, part: int, what: str) -> int:
    if part < 1 or whole < part or whole % part:
        raise PizaError(f"{what}: {whole} is no multiple of {part}")
    return whole // part


def _swin(shapes: Shapes) -> SwinConfig:
    dim, *_ = shapes.get("detector/backbone/patch_embed/kernel", 4)
    stages = shapes.count(_STAGE + "0/norm1/scale")
    tables = [shapes.get(_STAGE.format(stage) + "0/attention/relative_bias", 2) for stage in range(stages)]
    side = math.isqrt(tables[0][0]) if tables else 0
    if not tables or side**2 != tables[0][0] or side % 2 == 0 or {rows for rows, _ in tables} != {side**2}:
        raise PizaError(f"the tables of relative positions have the shapes {tables}; rows are (2 window - 1) squared")
    ratio = _quotient(shapes.get(_STAGE.format(0) + "0/up/kernel", 2)[0], dim, "width of the backbone's feed-forward")
    for first in range(stages):
        shapes.sizes.update(first=first, next=first + 1)
        if shapes.has("detector/backbone/out_norms/0/scale"):
            break
    shapes.get(f"detector/backbone/out_norms/{stages - first - 1}/scale", 1)
    return SwinConfig(
        dim=dim,
        depths=tuple(shapes.count(_STAGE.format(stage) + "{}/norm1/scale") for stage in range(stages)),
        heads=tuple(heads for _, heads in tables),
        window=(side + 1) // 2,
        mlp_ratio=ratio,
        first_output=first,
    )


def _bert(shapes: Shapes, heads: int | None) -> BertConfig:
    vocab_size, dim = shapes.get("detector/bert/word_embeddings/embedding", 2)
    return BertConfig(
        vocab_size=vocab_size,
        dim=dim,
        layers=shapes.count("detector/bert/layers/{}/up/bias"),
        heads=heads or _quotient(dim, _BERT_HEAD_WIDTH, "width of BERT and of its heads; give bert_heads"),
        hidden=shapes.get("detector/bert/layers/0/up/kernel", 2)[0],
        max_positions=shapes.get("detector/bert/position_embeddings/embedding", 2)[0],
    )


def infer_detector(
    tensors: Mapping[str, Sequence[int]],
    names: NameMap,
    *,
    heads: int | None = None,
    bert_heads: int | None = None,
    **variant: Any,
) -> DetectorConfig:
    """The detector whose parameters have these shapes.

    Args:
        tensors: foreign name -> shape.
        names: the code base's names.
        heads: of the image attention; by default one for each 32 channels.
        bert_heads: by default one for each 64 channels.
        variant: fields of ``DetectorConfig`` that shapes do not tell.

    Raises:
        PizaError: a tensor is absent, or sizes contradict each other or the number of heads.
    """
    shapes = Shapes(tensors, names)
    swin = _swin(shapes)
    levels, dim = shapes.get("detector/level_embedding", 2)
    decoder_layers = shapes.count("detector/decoder/layers/{}/norm1/scale")
    laterals = len(swin.depths) - swin.first_output
    shapes.sizes.update(laterals=laterals, decoder_layers=decoder_layers)
    if (found := laterals + shapes.count("detector/neck/extra/{}/conv/bias")) != levels:
        raise PizaError(f"the level embedding has {levels} rows, but there are projections of {found} levels")
    heads = heads or _quotient(dim, _HEAD_WIDTH, "width of the detector and of its heads; give heads")
    text_heads = max(heads // 2, 1)
    attention = "detector/enhancer/layers/0/image/attention/"
    weights, offsets = (
        shapes.get(attention + part, 1)[0] for part in ("attention_weights/bias", "sampling_offsets/bias")
    )
    points = _quotient(weights, heads * levels, f"attention weights of {heads} heads on {levels} levels; give heads")
    if offsets != 2 * weights:
        raise PizaError(
            f"there are {offsets} sampling offsets and {weights} attention weights; two for each one are due"
        )
    layer = "detector/enhancer/layers/0/"
    return DetectorConfig(
        swin=swin,
        bert=_bert(shapes, bert_heads),
        dim=dim,
        heads=heads,
        levels=levels,
        points=points,
        encoder_layers=shapes.count("detector/enhancer/layers/{}/image/norm1/scale"),
        decoder_layers=decoder_layers,
        hidden=shapes.get(layer + "image/ffn/layers/0/kernel", 2)[0],
        text_heads=text_heads,
        text_hidden=shapes.get(layer + "text/ffn/layers/0/kernel", 2)[0],
        fusion_heads=text_heads,
        fusion_dim=shapes.get(layer + "fusion/attention/image_query/kernel", 2)[0],
        queries=shapes.get("detector/query_embedding/embedding", 2)[0],
        **variant,
    )
