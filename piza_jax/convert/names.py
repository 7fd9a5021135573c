"""From a parameter's name to the foreign tensors that hold it, and the way of arrays in both directions.

A rule is a pair (pattern over our name, template of theirs). A pattern that matches the name without its last part
("detector/neck/lateral/0/conv") gives a foreign module, whose ``weight`` or ``bias`` is meant; a template that begins
with "=" gives the whole foreign name for a pattern that matches the whole of ours. Templates may hold ``<1+first>`` and
``<2*1>`` (a sum or product of numbers and of the sizes given), ``{query,key,value}`` (several modules, whose rows ours
holds end to end) and a last ``#query`` (ours is one third of a fused ``in_proj``).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from piza_jax.errors import PizaError

Rules = list[tuple[str, str]]

_THIRDS = ("query", "key", "value")
_WEIGHTS = ("kernel", "embedding", "scale")  # leaves that every torch module calls "weight"


@dataclass(frozen=True)
class Source:
    """Where one of our parameters is stored.

    Attributes:
        names: foreign tensors; several where their rows make up ours.
        third: which third of the rows of a fused tensor is ours, or None.
        axes: order of the foreign axes in ours.
        merge: order of the 2x2 neighbours in the last foreign axis of a patch merging; see ``NameMap.merge``.
    """

    names: tuple[str, ...]
    third: int | None = None
    axes: tuple[int, ...] | None = None
    merge: str = ""

    def turn(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Foreign arrays -> ours."""
        array = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
        if self.third is not None:
            array = np.split(array, len(_THIRDS))[self.third]
        if self.merge:
            array = _MERGES[self.merge][0](array)
        if self.axes and array.ndim == len(self.axes):
            array = array.transpose(self.axes)
        return array.reshape(1) if array.ndim == 0 else array

    def back(self, array: np.ndarray) -> list[np.ndarray]:
        """Ours -> foreign arrays, one for each name; of a fused tensor only our third."""
        if self.axes and array.ndim == len(self.axes):
            array = array.transpose(np.argsort(self.axes))
        if self.merge:
            array = _MERGES[self.merge][1](array)
        return np.split(array, len(self.names))


def _blocks(array: np.ndarray) -> np.ndarray:
    """Last axis [4 C] -> [4, C], one block for each of the 2x2 neighbours."""
    return array.reshape(*array.shape[:-1], 4, -1)


def _swap_columns(array: np.ndarray) -> np.ndarray:
    """Neighbours counted down the columns <-> along the rows."""
    return _blocks(array)[..., (0, 2, 1, 3), :].reshape(array.shape)


# name of the order -> (theirs to ours, ours to theirs); ours are blocks of channels, row by row.
_MERGES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "columns": (_swap_columns, _swap_columns),
    "unfold": (
        lambda array: array.reshape(*array.shape[:-1], -1, 4).swapaxes(-1, -2).reshape(array.shape),
        lambda array: _blocks(array).swapaxes(-1, -2).reshape(array.shape),
    ),
}


@dataclass(frozen=True)
class NameMap:
    """One code base's names.

    Attributes:
        label: the code base, for messages.
        rules: see the module's text; the first that matches counts.
        merge: order of patch merging's inputs: "columns" (the official Swin) or "unfold" (mmdetection).
        ignored: (pattern searched in a foreign name, reason why it has no place in our model).
        aliases: (pattern, replacement): a foreign tensor that repeats the one of the other name.
    """

    label: str
    rules: Rules
    merge: str
    ignored: Rules = field(default_factory=list)
    aliases: Rules = field(default_factory=list)

    def source_of(self, ours: str, sizes: Mapping[str, int]) -> Source:
        """Source of our parameter ``ours``, such as "detector/neck/lateral/0/conv/kernel".

        Args:
            ours: path of the parameter, joined by slashes.
            sizes: the numbers that templates speak of.

        Raises:
            PizaError: the name has no counterpart.
        """
        module, _, leaf = ours.rpartition("/")
        for pattern, template in self.rules:
            whole = template.startswith("=")
            if found := re.fullmatch(pattern, ours if whole else module):
                theirs = _fill_in(found.expand(template.removeprefix("=")), sizes)
                break
        else:
            raise PizaError(f"parameter {ours} has no counterpart in {self.label}")
        theirs, _, third = theirs.partition("#")
        if not whole:
            joint = "_" if third else "."
            theirs += joint + ("weight" if leaf in _WEIGHTS else leaf)
        transposed = leaf in ("kernel", "frequencies")
        convolution = re.search(r"/(conv|patch_embed)/kernel$", ours)
        axes = ((2, 3, 1, 0) if convolution else (1, 0)) if transposed else None
        merge = self.merge if "/downsample/" in ours else ""
        return Source(_spread(theirs), _THIRDS.index(third) if third else None, axes, merge)

    def reason(self, theirs: str) -> str | None:
        """Why a foreign tensor has no place in the model, or None."""
        return next((reason for pattern, reason in self.ignored if re.search(pattern, theirs)), None)

    def original(self, theirs: str) -> str | None:
        """Name of the tensor that this one repeats, or None."""
        for pattern, replacement in self.aliases:
            if re.search(pattern, theirs):
                return re.sub(pattern, replacement, theirs)
        return None


def attention(ours: str, theirs: str) -> Rules:
    """torch's MultiheadAttention, which keeps the three input projections in one array."""
    return [
        (ours + r"/(?P<part>query|key|value)", theirs + r".in_proj#\g<part>"),
        (ours + r"/out", theirs + ".out_proj"),
    ]


def deformable(ours: str, theirs: str) -> Rules:
    """Deformable DETR's attention."""
    return [
        (ours + r"/(?P<part>sampling_offsets|attention_weights)", theirs + r".\g<part>"),
        (ours + r"/value", theirs + ".value_proj"),
        (ours + r"/out", theirs + ".output_proj"),
    ]


def fusion(ours: str, theirs: str) -> Rules:
    """GLIP's bi-directional fusion: v is the image, l the text."""
    sides = (("image", "v"), ("text", "l"))
    return [
        *((f"{ours}/norm_{word}", f"{theirs}.layer_norm_{letter}") for word, letter in sides),
        *((f"{ours}/attention/{word}_query", f"{theirs}.attn.{letter}_proj") for word, letter in sides),
        *((f"{ours}/attention/{word}_value", f"{theirs}.attn.values_{letter}_proj") for word, letter in sides),
        *((f"{ours}/attention/{word}_out", f"{theirs}.attn.out_{letter}_proj") for word, letter in sides),
        *((f"{ours}/scale_{word}", f"={theirs}.gamma_{letter}") for word, letter in sides),
    ]


def bert(theirs: str) -> Rules:
    """The text backbone in transformers' own names, which every release keeps below a prefix."""
    ours, layer, layer_theirs = "detector/bert", r"detector/bert/layers/(\d+)", theirs + r".encoder.layer.\1"
    return [
        (ours + r"/(word|position)_embeddings", theirs + r".embeddings.\1_embeddings"),
        (ours + r"/type_embeddings", theirs + r".embeddings.token_type_embeddings"),
        (ours + r"/embedding_norm", theirs + r".embeddings.LayerNorm"),
        (layer + r"/attention/(query|key|value)", layer_theirs + r".attention.self.\2"),
        (layer + r"/attention/out", layer_theirs + r".attention.output.dense"),
        (layer + r"/attention_norm", layer_theirs + r".attention.output.LayerNorm"),
        (layer + r"/up", layer_theirs + r".intermediate.dense"),
        (layer + r"/down", layer_theirs + r".output.dense"),
        (layer + r"/output_norm", layer_theirs + r".output.LayerNorm"),
    ]


def _fill_in(template: str, sizes: Mapping[str, int]) -> str:
    def number(text: str) -> int:
        return int(text) if text.isdigit() else sizes[text]

    def value(found: re.Match[str]) -> str:
        left, sign, right = number(found[1]), found[2], number(found[3])
        return str(left * right if sign == "*" else left + right)

    return re.sub(r"<(\w+)([*+])(\w+)>", value, template)


def _spread(theirs: str) -> tuple[str, ...]:
    found = re.fullmatch(r"(.*)\{(.*)\}(.*)", theirs)
    return tuple(found[1] + word + found[3] for word in found[2].split(",")) if found else (theirs,)
