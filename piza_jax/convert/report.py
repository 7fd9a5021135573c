"""Stage by stage against transformers: the largest differences of one forward pass on the same weights and inputs.

Needs the optional extra ``parity`` (torch and transformers); nothing else of the package imports this file.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from piza_jax.convert.export import save_hugging_face
from piza_jax.convert.load import Loaded
from piza_jax.errors import PizaError
from piza_jax.models.grounding_dino import Encoded
from piza_jax.ops.encodings import sine_encoding
from piza_jax.piza.detector import PizaDetector

_SELECTED = "query selection, boxes in order"
_TIE = 1e-4


class Inputs(NamedTuple):
    """A batch as both sides take it."""

    images: np.ndarray  # float32 [B, H, W, 3], normalised, zero outside the content
    valid_hw: np.ndarray  # int32 [B, 2]
    input_ids: np.ndarray  # int32 [B, L], 0 after the last token
    token_mask: np.ndarray  # bool [B, L]


@dataclass(frozen=True)
class Difference:
    """One stage: largest absolute difference, and the largest absolute value of the reference beside it."""

    stage: str
    error: float
    scale: float


def example_inputs(
    vocab_size: int, delimiter_ids: tuple[int, ...], image_hw: tuple[int, int] = (224, 288), max_tokens: int = 32
) -> Inputs:
    """Two images of noise, the second padded, and two captions of random words, the second shorter.

    Args:
        vocab_size: ids are drawn below it.
        delimiter_ids: ids of [CLS], [SEP], full stop and question mark; the captions are cut into phrases with them.
        image_hw: canvas.
        max_tokens: tokens of the first caption, L.
    """
    rng = np.random.default_rng(0)
    height, width = image_hw
    images = rng.normal(size=(2, height, width, 3)).astype(np.float32)
    valid_hw = np.array([[height, width], [int(0.7 * height), int(0.85 * width)]], np.int32)
    images[1, valid_hw[1, 0] :] = images[1, :, valid_hw[1, 1] :] = 0
    cls, sep, stop, _ = delimiter_ids
    words = np.setdiff1d(np.arange(1, vocab_size), delimiter_ids)
    input_ids = np.zeros((2, max_tokens), np.int32)
    for row, count in enumerate((max_tokens, max(max_tokens // 2, 6))):
        ids = rng.choice(words, count)
        ids[4 :: int(rng.integers(4, 8))] = stop
        ids[0], ids[-2], ids[-1] = cls, stop, sep
        input_ids[row, :count] = ids
    return Inputs(images, valid_hw, input_ids, input_ids > 0)


def stages(model: PizaDetector, inputs: Inputs, references: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Our values of every stage, in the order of the forward pass.

    Args:
        model: the detector.
        inputs: the batch.
        references: cxcywh [B, Q, 4] that the decoder starts from in place of its own selection. Cells of nearly equal
            scores may change places in it, and then no two queries can be compared.
    """
    graph, state = nnx.split(model)
    order: list[str] = []

    def run(
        state: Any,
        references: jax.Array | None,
        images: jax.Array,
        valid_hw: jax.Array,
        input_ids: jax.Array,
        token_mask: jax.Array,
    ) -> dict[str, jax.Array]:
        detector = nnx.merge(graph, state, copy=True).detector
        text = detector.encode_text(input_ids, token_mask)
        levels = detector.features(images)
        values = {"BERT": _valid(text.hidden, token_mask)}
        values |= {f"feature level {index}": level for index, level in enumerate(levels)}
        image, pyramid = detector.flatten(levels, (images.shape[1], images.shape[2]), valid_hw)
        words = detector.text_projection(text.hidden)
        position = sine_encoding(text.position_ids, detector.config.dim)
        for index, layer in enumerate(detector.enhancer.layers):
            image, words = layer(image, words, pyramid, position, token_mask, text.self_mask, None)
            values[f"enhancer layer {index}, image"] = _valid(image, pyramid.mask)
            values[f"enhancer layer {index}, text"] = _valid(words, token_mask)
        encoded = Encoded(image, words, pyramid)
        memory, logits, base = detector.score_cells(encoded, token_mask)
        values["query selection, score of every cell"] = jnp.max(logits, axis=-1)
        values["query selection, box of every cell"] = jax.nn.sigmoid(detector.selection_box_head(memory) + base)
        chosen, boxes, _, _ = detector.select(encoded, token_mask)
        values["query selection, scores in order"] = jnp.max(chosen, axis=-1)
        values["query selection, boxes in order"] = boxes
        content = detector.query_embedding.embedding[...]
        found = detector.decoder(
            jnp.broadcast_to(content, (len(images), *content.shape)).astype(image.dtype),
            boxes if references is None else references,
            None,
            words,
            token_mask,
            image,
            pyramid,
        )
        for index in range(found.boxes.shape[0]):
            values[f"decoder layer {index}, logits"] = found.logits[index]
            values[f"decoder layer {index}, boxes"] = found.boxes[index]
        order.extend(values)
        return values

    values = jax.device_get(jax.jit(run)(state, references, *inputs))
    return {name: values[name] for name in order}  # jit sorts the keys


def _valid(features: jax.Array, mask: jax.Array) -> jax.Array:
    """Zero at padding, whose features feed nothing."""
    return jnp.where(mask[..., None], features, 0)


def reference_stages(reference: Any, inputs: Inputs) -> dict[str, np.ndarray]:
    """The same stages of a transformers detector (either class, in eval mode), under the same names."""
    import torch

    kept: dict[str, Any] = {}
    hooks = []

    def keep(name: str, module: Any, pick: Callable[[Any], Any]) -> None:
        hooks.append(module.register_forward_hook(lambda _, __, output: kept.__setitem__(name, pick(output))))

    base = reference.model
    keep("BERT", base.text_backbone, lambda output: output[0])
    for index, projection in enumerate(base.input_proj_vision):
        keep(f"feature level {index}", projection, lambda output: output.permute(0, 2, 3, 1))
    for index, layer in enumerate(base.encoder.layers):
        keep(f"enhancer layer {index}, image", layer, lambda output: output[0][0])
        keep(f"enhancer layer {index}, text", layer, lambda output: output[0][1])
    masks: list[Any] = []
    hooks.append(
        base.encoder.register_forward_pre_hook(
            lambda _, __, named: masks.append(~named["vision_attention_mask"]), with_kwargs=True
        )
    )
    height, width = inputs.images.shape[1:3]
    rows, columns = np.arange(height), np.arange(width)
    pixel_mask = (rows < inputs.valid_hw[:, :1])[:, :, None] & (columns < inputs.valid_hw[:, 1:])[:, None]
    token_mask = torch.tensor(np.asarray(inputs.token_mask))
    try:
        with torch.no_grad():
            output = reference(
                pixel_values=torch.tensor(np.ascontiguousarray(inputs.images.transpose(0, 3, 1, 2))),
                pixel_mask=torch.tensor(pixel_mask.astype(np.int64)),
                input_ids=torch.tensor(inputs.input_ids.astype(np.int64)),
                attention_mask=token_mask.long(),
            )
            for index in range(reference.config.decoder_layers):
                hidden = output.intermediate_hidden_states[:, index]
                places = (
                    output.init_reference_points if index == 0 else output.intermediate_reference_points[:, index - 1]
                )
                logits = reference.class_embed[index](hidden, output.encoder_last_hidden_state_text, token_mask)
                boxes = (reference.bbox_embed[index](hidden) + torch.special.logit(places, eps=1e-5)).sigmoid()
                kept[f"decoder layer {index}, logits"] = logits[..., : token_mask.shape[1]]
                kept[f"decoder layer {index}, boxes"] = boxes
    finally:
        for hook in hooks:
            hook.remove()
    scores = output.enc_outputs_class.max(dim=-1).values
    kept["query selection, score of every cell"] = scores
    kept["query selection, box of every cell"] = output.enc_outputs_coord_logits.sigmoid()
    kept["query selection, scores in order"] = scores.topk(reference.config.num_queries).values
    kept["query selection, boxes in order"] = output.init_reference_points
    for name in kept:
        if "text" in name or name == "BERT":
            kept[name] = torch.where(token_mask[..., None], kept[name], 0.0)
        elif "image" in name:
            kept[name] = torch.where(masks[0][..., None], kept[name], 0.0)
    return {name: value.float().numpy() for name, value in kept.items()}


def against_transformers(loaded: Loaded, source: str | os.PathLike[str]) -> list[Difference]:
    """Compare a loaded detector with transformers: with its own reading of the source, or of our export of it.

    Raises:
        PizaError: torch or transformers is not installed, or transformers has no such detector.
    """
    try:
        import transformers
    except ImportError as error:
        raise PizaError('a report needs torch and transformers: pip install "piza-jax[parity]"') from error
    detector = loaded.config.detector
    with tempfile.TemporaryDirectory() as folder:
        place = os.fspath(source)
        if loaded.origin != "hugging_face":
            place = os.path.join(folder, "export")
            save_hugging_face(loaded, place)
        name = "MMGroundingDinoForObjectDetection" if detector.class_bias else "GroundingDinoForObjectDetection"
        reference = getattr(transformers, name).from_pretrained(place).eval()
    inputs = example_inputs(detector.bert.vocab_size, detector.delimiter_ids, max_tokens=min(32, loaded.max_tokens))
    return compare(loaded.model, reference, inputs)


def compare(model: PizaDetector, reference: Any, inputs: Inputs) -> list[Difference]:
    """Largest differences of every stage.

    The decoder is compared on the reference's selection. Of the selected boxes those are compared whose score is not
    that of a neighbour, within ``_TIE``: the order of ties is no property of a detector.

    Raises:
        PizaError: the two have other stages, or padding tokens in other places.
    """
    theirs = reference_stages(reference, inputs)
    ours = stages(model, inputs, theirs[_SELECTED])
    steps = -np.diff(theirs["query selection, scores in order"], axis=1, prepend=np.inf, append=-np.inf)
    clear = (steps[:, :-1] > _TIE) & (steps[:, 1:] > _TIE)  # the last one may tie with a cell that was left out
    clear[:, -1] = False
    for side in (ours, theirs):
        side[_SELECTED] = np.where(clear[..., None], side[_SELECTED], 0)
    if set(ours) != set(theirs):
        raise PizaError(f"stages that only one side has: {', '.join(sorted(set(ours) ^ set(theirs)))}")
    rows = []
    for name, value in ours.items():
        finite = np.isfinite(theirs[name])
        if value.shape != finite.shape or not np.array_equal(np.isfinite(value), finite):
            raise PizaError(f"{name}: other shapes, or infinite in other places")
        expected = theirs[name][finite].astype(np.float64)
        rows.append(Difference(name, float(np.abs(value[finite] - expected).max()), float(np.abs(expected).max())))
    return rows


def table(rows: list[Difference]) -> str:
    """The differences as an aligned text table."""
    width = max(len(row.stage) for row in rows)
    head = f"{'stage'.ljust(width)}  largest error  largest value"
    return "\n".join([head, *(f"{row.stage.ljust(width)}  {row.error:13.1e}  {row.scale:13.3g}" for row in rows)])
