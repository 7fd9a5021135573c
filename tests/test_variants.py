"""GroundingDINO's own variant of the heads and the decoder, bfloat16 and rematerialisation, on the tiny detector."""

import dataclasses
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from piza_jax.models.config import DetectorConfig
from piza_jax.models.decoder import Decoder
from piza_jax.models.grounding_dino import GroundingDino
from piza_jax.models.heads import ContrastiveHead
from piza_jax.models.params import flatten_state, unflatten_state
from piza_jax.models.pyramid import build_pyramid
from piza_jax.ops.images import normalise
from piza_jax.piza.detector import PizaDetector
from tests import tiny_detector

ORIGINAL = {"class_bias": False, "class_scale": False, "shared_box_head": True, "refine_eps": 1e-5}
SHAPES_HW = ((8, 8),)  # of the decoder on its own, whose compile time is that of its levels


def piza_config(**changes):
    config = tiny_detector.model_config()
    return dataclasses.replace(config, detector=dataclasses.replace(config.detector, **{"decoder_layers": 2} | changes))


def shapes(make):
    """{name: shape} of a model's parameters, without making any."""
    state = nnx.state(nnx.eval_shape(make), nnx.Param)
    return {name: value.shape for name, value in flatten_state(state).items()}


def with_values(make, values=None):
    """Graph and state of a model whose parameters depend on their names alone, so that variants share them."""
    graph, state, rest = nnx.split(nnx.eval_shape(make), nnx.Param, ...)
    values = values or {name: _value(name, leaf.shape) for name, leaf in flatten_state(state).items()}
    return graph, unflatten_state(state, values), rest


def _value(name, shape):
    noise = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).astype(np.float32)
    if name.endswith("scale"):
        return 1 + np.float32(0.05) * noise
    return noise * np.float32(np.prod(shape[:-1]) ** -0.5 if name.endswith("kernel") else 0.1)


def quick(function, *arguments):
    """Compiled for such arguments with few optimisations: it runs once or twice, and those would take most time."""
    lowered = jax.jit(function).lower(*arguments)
    compiled = lowered.compile(compiler_options={"xla_backend_optimization_level": 0})
    return lambda *values: jax.device_get(compiled(*values))


# Names and shapes.


def test_each_choice_adds_or_removes_its_own_parameters_only():
    def named(**changes):
        return shapes(lambda: GroundingDino(piza_config(**changes).detector, rngs=nnx.Rngs(0)))

    base = named()
    biases = {"selection_class_head/bias", "decoder/class_heads/0/bias", "decoder/class_heads/1/bias"}
    second_head = {name for name in base if name.startswith("decoder/box_heads/1/")}
    assert biases < set(base)
    assert len(second_head) == 6
    without_bias, shared = named(class_bias=False), named(shared_box_head=True)
    assert without_bias == {name: shape for name, shape in base.items() if name not in biases}
    assert shared == {name: shape for name, shape in base.items() if name not in second_head}
    assert named(class_scale=False, refine_eps=1e-5, dtype="bfloat16", remat=True) == base


# Heads.


def test_class_scale_divides_the_scores_and_class_bias_moves_them():
    rng = np.random.default_rng(0)
    queries, text = (rng.normal(size=(2, count, 128)).astype(np.float32) for count in (5, 4))
    token_mask = np.array([[True, True, True, False], [True, True, False, False]])
    plain = np.einsum("bqd,bld->bql", queries, text)
    for class_scale in (False, True):
        for class_bias in (False, True):
            config = DetectorConfig.preset("tiny", class_scale=class_scale, class_bias=class_bias)
            head = ContrastiveHead(config)
            if class_bias:
                head.bias[...] = jnp.array([1.5])
            expected = plain / (128**0.5 if class_scale else 1) + 1.5 * class_bias
            expected = np.where(token_mask[:, None], expected, -np.inf)
            np.testing.assert_allclose(head(queries, text, token_mask), expected, rtol=1e-4, atol=1e-4)
    assert float(ContrastiveHead(DetectorConfig.preset("tiny")).bias[0]) == pytest.approx(np.log(0.01 / 0.99))


# The decoder on its own.


def decoder_inputs(least_side=0.05):
    rng = np.random.default_rng(1)
    cells = sum(h * w for h, w in SHAPES_HW)
    references = np.concatenate([rng.uniform(0.2, 0.8, (2, 6, 2)), rng.uniform(least_side, 0.5, (2, 6, 2))], axis=2)
    pyramid = build_pyramid(jnp.array([[64, 64], [40, 64]]), (64, 64), SHAPES_HW, jnp.zeros((len(SHAPES_HW), 128)))
    noise = [rng.normal(size=(2, count, 128)).astype(np.float32) for count in (6, 5, cells)]
    query, text, memory = noise
    return query, references.astype(np.float32), None, text, np.ones((2, 5), bool), memory, pyramid


def decoder(values=None, **changes):
    config = piza_config(levels=len(SHAPES_HW), **changes).detector
    make = lambda: Decoder(config, dtype=jnp.dtype(config.dtype), rngs=nnx.Rngs(0))  # noqa: E731
    graph, state, rest = with_values(make, values)
    return lambda state, *inputs: nnx.merge(graph, state, rest, copy=True)(*inputs), state


def box_gradient(run, state, inputs):
    """Function from the weight of each layer to the gradient {name: array} of its boxes' sum, and the boxes."""

    def loss(state, weights):
        boxes = run(state, *inputs).boxes
        waves = jnp.cos(jnp.arange(boxes.size)).reshape(boxes.shape)
        return jnp.einsum("lbqc,lbqc,l->", boxes, waves, weights), boxes

    gradient = quick(jax.grad(loss, has_aux=True), state, np.ones(2, np.float32))
    return lambda weights: (lambda grads, boxes: (flatten_state(grads), boxes))(
        *gradient(state, np.array(weights, np.float32))
    )


def test_layers_share_one_box_head_and_both_teach_it():
    inputs = decoder_inputs()
    tied = flatten_state(decoder()[1])
    tied |= {name: tied[name.replace("/1/", "/0/", 1)] for name in tied if name.startswith("box_heads/1/")}
    single = {name: value for name, value in tied.items() if not name.startswith("box_heads/1/")}
    two = box_gradient(*decoder(tied), inputs)
    one = box_gradient(*decoder(single, shared_box_head=True), inputs)
    (shared, boxes), (apart, same_boxes) = one([1, 1]), two([1, 1])
    np.testing.assert_allclose(boxes, same_boxes, atol=1e-6)
    heads = [name for name in shared if name.startswith("box_heads/0/")]
    assert len(heads) == 6
    for name in heads:
        parts = [apart[name], apart[name.replace("/0/", "/1/", 1)]]
        assert min(np.abs(part).max() for part in parts) > 1e-4
        np.testing.assert_allclose(shared[name], parts[0] + parts[1], rtol=1e-3, atol=1e-5, err_msg=name)
    first_only, _ = two([1, 0])
    assert all(not np.any(value) for name, value in first_only.items() if name.startswith("box_heads/1/"))


@pytest.mark.parametrize(("refine_eps", "least"), [(1e-3, 1e-3), (1e-5, 1e-4)])
def test_refinement_keeps_boxes_as_small_as_its_clamp_lets_it(refine_eps, least):
    query, references, *others = decoder_inputs()
    references[:, :3, 2:] = 1e-4
    run, state = decoder(refine_eps=refine_eps)
    still = {name: value * (not name.startswith("box_heads")) for name, value in flatten_state(state).items()}
    boxes = jax.jit(run)(unflatten_state(state, still), query, references, *others).boxes
    np.testing.assert_allclose(boxes[0], references, rtol=1e-3)  # the clamp stands between the layers only
    np.testing.assert_allclose(boxes[1][:, :3, 2:], least, rtol=2e-3)
    np.testing.assert_allclose(boxes[1][:, 3:], references[:, 3:], rtol=1e-3)


def test_output_boxes_have_a_clamp_of_their_own():
    query, references, *others = decoder_inputs()
    references[:, :3, 2:] = 1e-4
    run, state = decoder(output_eps=1e-3)
    still = {name: value * (not name.startswith("box_heads")) for name, value in flatten_state(state).items()}
    boxes = jax.jit(run)(unflatten_state(state, still), query, references, *others).boxes
    np.testing.assert_allclose(boxes[0][:, :3, 2:], 1e-3, rtol=2e-3)
    np.testing.assert_allclose(boxes[0][:, 3:], references[:, 3:], rtol=1e-3)


def test_decoder_in_bfloat16_stays_close_to_float32():
    inputs = decoder_inputs()
    run, state = decoder()
    run16, _ = decoder(dtype="bfloat16")
    low = [value.astype(jnp.bfloat16) if i in (0, 3, 5) else value for i, value in enumerate(inputs)]
    exact, rough = jax.jit(run)(state, *inputs), jax.jit(run16)(state, *low)
    assert rough.boxes.dtype == rough.logits.dtype == jnp.float32
    difference = np.abs(rough.boxes - exact.boxes)
    assert 0 < difference.mean() < 0.005
    assert difference.max() < 0.05
    assert relative_error(rough.logits, exact.logits) < 0.02


# The whole model.

BATCH = tiny_detector.batch(size=2)


def relative_error(ours, theirs):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def whole(**changes):
    """Function (state, batch) -> (a number that hangs on all outputs, (features, detections)), and the state."""
    config = piza_config(levels=3, decoder_layers=1, **changes)
    graph, state, rest = with_values(lambda: PizaDetector(config, rngs=nnx.Rngs(0)))

    def forward(state, batch):
        model = nnx.merge(graph, state, rest, copy=True)
        text = model.encode_text(batch["input_ids"], batch["token_mask"])
        images = normalise(batch["image"], batch["valid_hw"])
        condition = model.zoom_embedding(batch["progress"])
        encoded = model.detector.encode(images, batch["valid_hw"], text, condition)
        found = model.detector.decode(encoded, text)
        outputs = (found.boxes, found.selected_boxes, jax.nn.sigmoid(found.logits))
        waves = [jnp.cos(jnp.arange(x.size)).reshape(x.shape) for x in outputs]
        return sum(jnp.sum(x * wave) for x, wave in zip(outputs, waves, strict=True)), (encoded, found)

    return forward, state


def gradient(**changes):
    forward, state = whole(**changes)
    return jax.value_and_grad(forward, has_aux=True), state


@pytest.fixture(scope="module")
def original():
    """GroundingDINO's own variant: its number, outputs and gradients."""
    run, state = gradient(**ORIGINAL)
    return quick(run, state, BATCH)(state, BATCH)


@pytest.mark.slow
def test_groundingdinos_own_variant_gives_finite_boxes_and_every_part_a_gradient(original):
    (number, (_, found)), gradients = original
    assert np.isfinite(number)
    assert found.boxes.shape == (1, 2, 20, 4)
    assert ((found.boxes >= 0) & (found.boxes <= 1)).all()
    np.testing.assert_array_equal(
        np.isfinite(found.logits), np.broadcast_to(BATCH["token_mask"][:, None], found.logits.shape)
    )
    still = []
    for name, value in flatten_state(gradients).items():
        assert np.isfinite(value).all(), name
        if not np.any(value):
            still.append(name)
    # Neither is used without training targets, nor is the history by the detector; a shift of all keys changes nothing.
    unused = ("detector/denoising/", "history/")
    assert [name for name in still if not name.startswith(unused) and not name.endswith("key/bias")] == []


@pytest.mark.slow
def test_remat_gives_the_same_outputs_and_gradients(original):
    (number, (_, found)), gradients = original
    run, state = gradient(**ORIGINAL, remat=True)
    plain = gradient(**ORIGINAL)[0]
    always, often = (str(jax.make_jaxpr(function)(state, BATCH)).count("remat") for function in (plain, run))
    # Four blocks of Swin, a layer of BERT, enhancer and decoder each; sampling on a CPU keeps nothing to be recomputed.
    assert often >= always + 7
    (same_number, (_, same_found)), same_gradients = quick(run, state, BATCH)(state, BATCH)
    terms = [[x.boxes, x.selected_boxes, jax.nn.sigmoid(x.logits)] for x in (found, same_found)]
    for one, same in zip(*terms, strict=True):
        np.testing.assert_allclose(same, one, rtol=0, atol=1e-5)
    # The number is a sum of these that nearly cancels: adding them up in another order rounds by this much.
    rounding = float(np.finfo(np.float32).eps) * sum(float(jnp.sum(jnp.abs(one))) for one in terms[0])
    assert float(same_number) == pytest.approx(float(number), abs=rounding)
    expected = flatten_state(gradients)
    for name, value in flatten_state(same_gradients).items():
        scale = max(float(np.abs(expected[name]).max()), 1e-3)
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-3 * scale, err_msg=name)


@pytest.mark.slow
def test_bfloat16_features_and_scores_stay_close_and_boxes_stay_float32(original):
    (_, (encoded, found)), _ = original
    forward, state = whole(**ORIGINAL, dtype="bfloat16")
    model = nnx.eval_shape(lambda: PizaDetector(piza_config(dtype="bfloat16"), rngs=nnx.Rngs(0)))
    assert {leaf.dtype for leaf in flatten_state(nnx.state(model, nnx.Param)).values()} == {np.dtype("float32")}
    _, (rough, rough_found) = quick(forward, state, BATCH)(state, BATCH)
    assert rough.memory.dtype == rough.text.dtype == jnp.bfloat16
    assert {x.dtype for x in (*rough_found[:-1], *rough_found.cells[:2]) if x is not None} == {np.dtype("float32")}
    assert 0 < relative_error(rough.memory, encoded.memory) < 0.03
    assert 0 < relative_error(rough.text, encoded.text) < 0.03
    # Scores come best first; which of two equal cells comes first is not compared.
    scores, exact = rough_found.selected_logits.max(axis=-1), found.selected_logits.max(axis=-1)
    assert relative_error(scores, exact) < 0.03
