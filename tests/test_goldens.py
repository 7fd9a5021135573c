"""Stage by stage against numbers from the PyTorch reference, in float32, without and with its denoising queries."""

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from piza_jax.convert import mmdet
from piza_jax.convert.check import sizes_of
from piza_jax.errors import PizaError
from piza_jax.models.denoising import Denoising, query_mask
from piza_jax.models.text import expression_tokens, text_inputs
from piza_jax.ops.boxes import xyxy_to_cxcywh
from piza_jax.training.losses import detection_losses
from tests import figures, goldens

FEATURES, BOXES = 1e-4, 2e-5


class Run:
    """One golden with everything of ours beside it."""

    def __init__(self, folder: Path, name: str):
        self.meta, self.golden = goldens.load(folder, name)
        self.model, self.ignored = goldens.build(self.meta)
        golden = self.golden
        self.batch = golden["image"].shape[0]
        height, width = golden["image"].shape[2:]
        self.valid_hw = jnp.array(golden.get("image_hw", [[height, width]] * self.batch))
        self.token_mask = jnp.array(golden["attention_mask"]).astype(bool)
        graph, state = nnx.split(self.model)
        self.graph, self.state = graph, state
        self.history = history(self.meta) if self.meta["config"]["piza"] else None
        self.stages = jax.tree.map(np.asarray, jax.jit(self.forward)(state))

    def text(self, model):
        """Text features with the reference's slip in batches.

        Its text layers repeat the masks batch first where torch counts heads first, so head h of every sample is given
        the mask of sample h modulo B. Ours does not; the slip is put in here, as one mask for each head.
        """
        text = model.encode_text(jnp.array(self.golden["input_ids"]), self.token_mask)
        heads = jnp.arange(model.config.detector.text_heads)
        mixed = text.self_mask[(jnp.arange(self.batch)[:, None] * len(heads) + heads) % self.batch]
        return text._replace(self_mask=mixed)

    def forward(self, state):
        model = nnx.merge(self.graph, state, copy=True)
        images = jnp.array(self.golden["image"]).transpose(0, 2, 3, 1)
        text = self.text(model)
        stages = {"text": text, "neck": model.detector.features(images)}
        condition = None
        if self.history is not None:
            stages["history"] = model.read_history(*self.history)
            condition = model.zoom_embedding(jnp.array(self.golden["zoom"]))
            stages["zoom_embedding"] = condition
        encoded = model.detector.encode(images, self.valid_hw, text, condition)
        stages["encoded"] = encoded
        stages["detections"] = model.detector.decode(encoded, text)
        return stages

    def losses(self, state, denoise: bool):
        model = nnx.merge(self.graph, state, copy=True)
        golden = self.golden
        images = jnp.array(golden["image"]).transpose(0, 2, 3, 1)
        text = self.text(model)
        progress = jnp.array(golden["zoom"]) if self.history is not None else None
        denoising = None
        if denoise:
            labels = jnp.array(golden["dn_label_query"])
            boxes = jnp.array(golden["dn_box_query_unact"])
            mask = jnp.array(~golden["dn_attn_mask"])
            denoising = Denoising(labels, boxes, mask, int(golden["dn_num_groups"]))
        detections = model.detect(images, self.valid_hw, text, progress, denoising)
        scale = jnp.tile(self.valid_hw[:, ::-1], (1, 2)).astype(jnp.float32)
        target = xyxy_to_cxcywh(jnp.array(golden["gt_boxes"]) / scale)[:, None]
        positive = expression_tokens(self.token_mask)[:, None].astype(jnp.float32)
        valid = jnp.ones((self.batch, 1), bool)
        losses = detection_losses(detections, target, valid, positive, self.token_mask, self.valid_hw)
        return sum(losses.values()), (losses, detections)


def history(meta: dict) -> tuple[jax.Array, jax.Array]:
    longest = max(len(boxes) for boxes in meta["history"])
    boxes = np.zeros((len(meta["history"]), longest, 4), np.float32)
    mask = np.zeros(boxes.shape[:2], bool)
    for row, xywh in enumerate(np.array(item, np.float32) for item in meta["history"]):
        boxes[row, : len(xywh)] = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        mask[row, : len(xywh)] = True
    return jnp.array(boxes), jnp.array(mask)


@cache
def cached_run(folder: Path, name: str) -> Run:
    return Run(folder, name)


@pytest.fixture(scope="module", params=goldens.NAMES)
def run(request, shared_dir) -> Run:
    return cached_run(shared_dir, request.param)


def close(ours, theirs, tolerance: float) -> None:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs))
    finite = np.isfinite(theirs)
    kind = "boxes and history" if tolerance == BOXES else "features and logits"
    figures.note(f"goldens: {kind}, absolute", np.abs(ours[finite] - theirs[finite]).max())
    np.testing.assert_allclose(ours[finite], theirs[finite], rtol=0, atol=tolerance)


def test_text_masks_and_positions_are_equal(run):
    own_mask = text_inputs(
        jnp.array(run.golden["input_ids"]), run.token_mask, run.model.config.detector.delimiter_ids
    ).self_mask
    np.testing.assert_array_equal(own_mask, run.golden["text_self_mask"])
    np.testing.assert_array_equal(run.stages["text"].position_ids, run.golden["text_position_ids"])


def test_bert_and_neck_agree(run):
    close(run.stages["text"].hidden, run.golden["bert"], FEATURES)
    for index, level in enumerate(run.stages["neck"]):
        close(level.transpose(0, 3, 1, 2), run.golden[f"neck{index}"], FEATURES)


def test_history_and_zoom_embedding_agree(run):
    if run.history is None:
        assert not any(name.startswith("hist") for name in run.golden)
        return
    reading = run.stages["history"]
    close(reading.stop_probability, run.golden["hist_eos_prob"], BOXES)
    close(reading.progress, run.golden["hist_progress"], BOXES)
    close(reading.feature, run.golden["hist_feature"], BOXES)
    close(run.stages["zoom_embedding"], run.golden["zoom_embedding"], FEATURES)


def test_enhanced_features_agree(run):
    encoded = run.stages["encoded"]
    close(encoded.memory, run.golden["memory"], FEATURES)
    close(encoded.text, run.golden["memory_text"], FEATURES)
    if "memory_mask" in run.golden:
        np.testing.assert_array_equal(encoded.pyramid.mask, ~run.golden["memory_mask"])


def test_query_selection_agrees_in_the_same_order(run):
    detections = run.stages["detections"]
    close(detections.selected_logits, run.golden["topk_logits"], FEATURES)
    close(detections.selected_boxes, run.golden["topk_boxes"], BOXES)


def test_every_decoder_layer_agrees(run):
    close(run.stages["detections"].logits, run.golden["logits"], FEATURES)
    close(run.stages["detections"].boxes, run.golden["boxes"], BOXES)


@pytest.mark.slow
@pytest.mark.parametrize("denoise", [False, True], ids=["plain", "denoising"])
def test_losses_and_gradient_norms_agree(run, denoise):
    prefix = "dn_" if denoise else ""
    gradient = jax.jit(jax.value_and_grad(lambda state: run.losses(state, denoise), has_aux=True, allow_int=True))
    (total, (losses, detections)), grads = gradient(run.state)
    names = {key.removeprefix(f"{prefix}loss/") for key in run.golden if key.startswith(f"{prefix}loss/")}
    assert names == {*losses, "total"}
    for name in names:
        expected = float(run.golden[f"{prefix}loss/{name}"].reshape(()))
        value = total if name == "total" else losses[name]
        figures.note("goldens: losses, relative", abs(float(value) - expected) / abs(expected))
        np.testing.assert_allclose(float(value), expected, rtol=1e-5, err_msg=name)
    if denoise:
        both = np.concatenate([detections.denoising_logits, detections.logits], axis=2)
        close(both, run.golden["dn_logits"], FEATURES)
        close(np.concatenate([detections.denoising_boxes, detections.boxes], axis=2), run.golden["dn_boxes"], BOXES)

    squares: dict[str, float] = {}
    sizes = sizes_of(run.model)
    for path, leaf in nnx.to_flat_state(nnx.filter_state(grads, nnx.Param)):
        (theirs,) = mmdet.MMDET.source_of("/".join(map(str, path)), sizes).names
        array = np.asarray(leaf[...], np.float64)
        if "word_embeddings" in theirs:
            array = array[1:]  # torch gives the row of the padding token no gradient
        squares[theirs] = squares.get(theirs, 0.0) + float(np.sum(np.square(array)))
    start = f"{prefix}gradnorm/"
    expected_norms = {key.removeprefix(start): float(v) for key, v in run.golden.items() if key.startswith(start)}
    assert len(expected_norms) > 300
    for name, expected in expected_norms.items():
        tolerance = {"rtol": 0, "atol": 1e-4} if expected < 1e-4 else {"rtol": 2e-3, "atol": 0}
        norm = squares.pop(name) ** 0.5
        if expected < 1e-4:
            figures.note("goldens: norms of gradients that are rounding noise, absolute", abs(norm - expected))
        else:
            figures.note("goldens: gradient norms, relative", abs(norm - expected) / expected)
        np.testing.assert_allclose(norm, expected, **tolerance, err_msg=name)
    assert not [name for name, square in squares.items() if square > 1e-12], "a gradient that the reference has not"


def test_denoising_mask_is_the_references(run):
    golden = run.golden
    groups, queries = int(golden["dn_num_groups"]), run.model.config.detector.queries
    targets = int(golden["dn_num_queries"]) // (2 * groups)
    np.testing.assert_array_equal(np.asarray(query_mask(targets, groups, queries)), ~golden["dn_attn_mask"])


def test_converter_names_what_is_left_over_on_either_side(run):
    tensors = {key: goldens.recipe(key, shape) for key, shape in run.meta["params"].items()}
    assert all("transformer_layer" in name for name in run.ignored)
    assert len(run.ignored) == (12 if run.meta["config"]["piza"] else 0)
    extra = tensors | {"backbone.unheard_of": np.zeros(3, np.float32)}
    with pytest.raises(PizaError, match=r"1 tensors without a place in the model: backbone\.unheard_of"):
        mmdet.load_tensors(run.model, extra)
    lacking = {key: value for key, value in tensors.items() if key != "memory_trans_fc.weight"}
    with pytest.raises(PizaError, match=r"without a tensor: detector/memory_projection/kernel \(from memory_trans_fc"):
        mmdet.load_tensors(run.model, lacking)
    bent = tensors | {"memory_trans_fc.bias": np.zeros(5, np.float32)}
    with pytest.raises(PizaError, match=r"another shape: detector/memory_projection/bias"):
        mmdet.load_tensors(run.model, bent)
