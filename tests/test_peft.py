"""What each fine-tuning method trains, and what it does to the detector before and after."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks import peft_counts
from piza_jax.errors import PizaError
from piza_jax.models.params import flatten_state
from piza_jax.models.text import text_inputs
from piza_jax.peft import select
from piza_jax.peft.coop import Context
from piza_jax.peft.lora import LoraLinear
from piza_jax.piza.detector import PizaConfig, PizaDetector, config_of_method
from piza_jax.piza.plain import plain_config, switch_off
from piza_jax.training import config as configs
from tests import figures
from tests.peft_forms import METHODS, ROOT, form, model_config

PIZA_METHODS = METHODS[1::2]


def relative_error(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


# Counts and names.


def test_full_size_counts_are_those_of_the_papers_table():
    counts = peft_counts.trainable_counts()
    assert counts == {
        "full": 172_977_693,
        "coop": 96_064 + 16 * 768,
        "piza_coop": 108_352 + 131_584 + 139_986 + (256 + 1) * 512 + (512 + 1) * 768,
        "lora": 96_064 + 6 * 195_456,
        "piza_lora": 1_268_800 + 131_584 + 139_986,
        "adapter_plus": 3_260_224,
        "piza_adapter_plus": 3_260_224 + 131_584 + 139_986,
        "vpt": 96_064 + 8 * (4_416 + 138),
        "piza_vpt": 132_496 + 131_584 + 139_986,
    }
    assert counts.keys() == peft_counts.PAPER.keys() == select.METHODS.keys() - {"none"}
    for method, millions in peft_counts.PAPER.items():
        assert millions is None or round(counts[method] / 1e6, 1) == millions, method


@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_what_it_adds_and_all_layer_norms(method):
    plain, made = form("full"), form(method)
    norms = {
        "/".join(map(str, (*path, leaf)))
        for path, module in nnx.iter_modules(plain.abstract)
        if isinstance(module, nnx.LayerNorm)
        for leaf in ("scale", "bias")
    }
    assert norms < plain.names < made.names
    _, train, frozen = select.split(made.abstract, method)
    expected = norms | (made.names - plain.names)
    assert set(flatten_state(train)) == expected
    assert set(flatten_state(frozen)) == made.names - expected
    assert {name for name in made.names if select.is_base(name)} == plain.names
    assert {name for name in made.names if select.belongs_to(method, name)} == expected
    assert {name for name in made.names if select.belongs_to("full", name)} == made.names


def test_what_piza_adds_is_the_zoom_embedding_the_history_and_coops_shift():
    for method in PIZA_METHODS:
        added = form(method).names - form(method.removeprefix("piza_")).names
        assert {name.split("/")[0] for name in added} <= {"zoom_embedding", "history", "detector"}
        in_detector = {name for name in added if name.startswith("detector/")}
        assert in_detector == (
            {f"detector/text_condition/{layer}/{leaf}" for layer in ("hidden", "out") for leaf in ("kernel", "bias")}
            if method == "piza_coop"
            else set()
        )


def test_a_plain_method_leaves_pizas_parts_alone():
    for method in PIZA_METHODS:
        _, train, _ = select.split(form(method).abstract, method.removeprefix("piza_"))
        assert set(flatten_state(train)) <= form(method.removeprefix("piza_")).names


def test_a_method_on_a_model_of_another_is_an_error():
    with pytest.raises(PizaError, match=r"no rule of fine-tuning method 'adapter_plus' covers .*lora_a"):
        select.split(form("lora").abstract, "adapter_plus")
    with pytest.raises(PizaError, match=r"no rule of fine-tuning method 'piza_lora' covers .*bert/context/tokens"):
        select.split(form("piza_coop").abstract, "piza_lora")
    with pytest.raises(PizaError, match=r"no rule of fine-tuning method 'vpt' covers .*/text_condition/out/bias"):
        select.is_trainable("vpt", "detector/text_condition/out/bias")
    with pytest.raises(PizaError, match=r"no parameters of fine-tuning method 'piza_vpt'; set model.adapter to 'vpt'"):
        select.split(form("full").abstract, "piza_vpt")


def test_lora_stands_in_every_attention_projection():
    plain, made = form("full"), form("lora")
    wrapped = {name.rsplit("/", 1)[0] for name in made.names - plain.names}
    # Sampling offsets and weights are no projections.
    attention = {
        name.removesuffix("/kernel")
        for name in plain.names
        if "attention/" in name and name.endswith("/kernel") and "sampling_offsets" not in name
    }
    assert wrapped == {name for name in attention if not name.endswith("attention_weights")}
    for name in wrapped:
        inputs, outputs = made.moved[f"{name}/kernel"].shape
        assert made.moved[f"{name}/lora_a"].shape == (inputs, 2)
        assert made.moved[f"{name}/lora_b"].shape == (2, outputs)


@pytest.mark.parametrize("method", ["full", *METHODS])
def test_config_of_each_method(method):
    config = configs.load_config(str(ROOT / "configs" / f"piza_sorec.py:peft={method}"))
    zooms = method.startswith("piza_")
    assert config.peft == method
    assert config.model.adapter == ("none" if method == "full" else method.removeprefix("piza_"))
    assert (config.model.zoom_projection != "none", config.model.history) == (zooms, zooms)
    assert config.search.max_steps == (
        configs.load_config(str(ROOT / "configs/piza_sorec.py")).search.max_steps if zooms else 1
    )
    assert config.data.stop_fraction == (None if zooms else 0.0)
    if method == "full":
        same = configs.load_config(str(ROOT / "configs" / "full_finetune.py"))
        assert same.to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter": "lorra"}, "model.adapter is 'lorra'; choose one of none, adapter_plus, coop, lora, vpt"),
        ({"adapter": "lora", "zoom_projection": "per_adapter"}, "'per_adapter' needs model.adapter 'adapter_plus'"),
        ({"adapter": "lora", "lora_rank": 0}, "model.lora_rank is 0; it must be at least 1"),
        ({"adapter": "coop", "context_tokens": 600}, "model.context_tokens is 600, more than the text backbone"),
    ],
)
def test_senseless_choices_are_named(changes, message):
    with pytest.raises(PizaError, match=message):
        PizaConfig(**changes)
    with pytest.raises(PizaError, match="no fine-tuning method 'lorra'"):
        config_of_method("lorra", PizaConfig().detector)


# What a method does.


@pytest.mark.parametrize("method", METHODS)
def test_the_pretrained_detector_starts_as_it_was_or_close_to_it(method):
    plain, made = form("full"), form(method)
    before, after = plain.detect(plain.moved, 0.3), made.detect(made.start, 0.3)
    if method in ("lora", "piza_lora"):
        for name, value in before.items():
            np.testing.assert_allclose(after[name], value, rtol=0, atol=1e-6, err_msg=name)
    for name in ("best", "words"):
        error = relative_error(after[name], before[name])
        figures.note(f"peft: {method} at the start, {name}, relative", error)
        # Adapter+ starts from small random numbers, CoOp and VPT from tokens that get little attention.
        assert error < 0.05, name


@pytest.mark.parametrize("method", METHODS)
def test_zooming_changes_what_piza_sees_and_nothing_else(method):
    made = form(method)
    early, late, near = (made.detect(made.moved, progress) for progress in (0.1, 0.6, 0.61))
    changed = {name for name in early if relative_error(late[name], early[name]) > 1e-3}
    if method in PIZA_METHODS:
        assert changed == {"boxes", "scores", "best"}  # the words are encoded once for all steps
    else:
        assert not any(np.any(late[name] != early[name]) for name in early)
    for name in early:
        np.testing.assert_array_equal(near[name], late[name])  # 0.61 rounds to 0.6


@pytest.mark.parametrize("method", METHODS)
def test_a_method_with_other_weights_changes_the_output_and_switched_off_it_is_the_plain_detector(method):
    plain, made = form("full"), form(method)
    original = plain.moved
    trained = {name: value + 0.02 for name, value in made.moved.items() if select.is_trainable(method, name)}
    model = made.merge({**original, **{name: made.moved[name] for name in made.names - plain.names}, **trained})
    before = plain.detect(original, 0.3)
    changed = made.detect(flatten_state(nnx.state(model, nnx.Param)), 0.3)
    assert relative_error(changed["best"], before["best"]) > 0.01
    norms = {name: value for name, value in original.items() if select.is_trainable(method, name)}
    off = switch_off(model, method, norms)
    values = flatten_state(nnx.state(off, nnx.Param))
    assert off.config == plain_config(made.config) == plain.config
    assert values.keys() == original.keys()
    for name, value in plain.detect(values, 0.3).items():
        np.testing.assert_array_equal(value, before[name])
    norms.pop("detector/bert/embedding_norm/scale")
    with pytest.raises(PizaError, match=r"bert/embedding_norm/scale was trained by .* original value is not given"):
        switch_off(model, method, norms)
    with pytest.raises(PizaError, match=r"the original .*bert/embedding_norm/scale is \(3,\) instead of \(64,\)"):
        switch_off(model, method, {**original, "detector/bert/embedding_norm/scale": np.ones(3)})


@pytest.mark.parametrize("method", ["piza_coop", "piza_lora", "piza_vpt"])
def test_the_zoom_loop_runs_with_the_method(method):
    made = form(method)
    early, late = (
        made.zoom({**made.moved, "history/progress_out/bias": np.full((1,), bias, np.float32)}) for bias in (0.3, 0.8)
    )
    for result in (early, late):
        np.testing.assert_array_equal(result.num_steps, [3, 3])
        assert np.isfinite(result.score).all()
        areas = np.prod(result.crops[..., 2:] - result.crops[..., :2], axis=-1)
        assert (areas[:, 1] < areas[:, 0]).all()
    np.testing.assert_allclose(late.progress[:, 0] - early.progress[:, 0], 0.5, atol=1e-5)
    assert np.abs(late.boxes[:, 0] - early.boxes[:, 0]).max() > 1e-3  # the same crop, seen with another progress


# Parts.


def test_lora_adds_its_product_scaled_by_alpha_over_rank():
    rng = np.random.default_rng(0)
    base = nnx.Linear(5, 4, rngs=nnx.Rngs(0))
    layer = LoraLinear(base, 2, 6.0, rngs=nnx.Rngs(1))
    x = rng.normal(size=(3, 5)).astype(np.float32)
    np.testing.assert_array_equal(layer(x), base(x))
    assert layer.kernel is base.kernel
    assert layer.bias is base.bias
    layer.lora_b[...] = jnp.asarray(rng.normal(size=(2, 4)), jnp.float32)
    weight = base.kernel[...] + 3.0 * layer.lora_a[...] @ layer.lora_b[...]
    np.testing.assert_allclose(layer(x), x @ weight + base.bias[...], rtol=1e-5, atol=1e-5)
    assert 0 < float(jnp.abs(layer.lora_a[...]).max()) <= 5**-0.5


def test_context_is_seen_by_phrases_only_and_weighs_as_one_word():
    ids = np.array([[1, 9, 9, 3, 8, 3, 2, 0]])  # [CLS] two words, stop, a word, stop, [SEP], padding
    inputs = text_inputs(jnp.array(ids), jnp.array(ids > 0), (1, 2, 3))
    context = Context(4, 6, rngs=nnx.Rngs(0))
    words = jnp.zeros((1, 8, 6))
    tokens, positions, mask, bias = context.insert(words, inputs.position_ids, inputs.self_mask)
    np.testing.assert_array_equal(context.remove(tokens), words)
    np.testing.assert_array_equal(tokens[0, :4], context.tokens[...])
    np.testing.assert_array_equal(positions[0], [0, 1, 2, 3, *np.asarray(inputs.position_ids[0])])
    np.testing.assert_array_equal(mask[:, 4:, 4:], inputs.self_mask)
    phrase = [False, True, True, True, True, True, False, False]
    np.testing.assert_array_equal(mask[0, :4], np.tile([True] * 4 + phrase, (4, 1)))
    np.testing.assert_array_equal(mask[0, 4:, :4], np.tile(np.array(phrase)[:, None], (1, 4)))
    assert float(jnp.sum(jnp.exp(bias[:4]))) == pytest.approx(1.0)
    np.testing.assert_array_equal(bias[4:], 0.0)


def test_coop_changes_words_and_leaves_lone_delimiters_and_padding():
    plain, made = form("full"), form("coop")
    ids = np.array([[1, 9, 9, 3, 2, 0, 0], [1, 8, 7, 6, 9, 3, 2]], np.int32)

    def encode(form_of, values, ids):
        def run(values):
            model = form_of.merge(values)
            inputs = text_inputs(ids, ids > 0, (1, 2, 3))
            return model.detector.bert(inputs.input_ids, inputs.position_ids, inputs.self_mask)

        return np.asarray(jax.jit(run)(values))

    before, after = encode(plain, plain.moved, jnp.array(ids)), encode(made, made.moved, jnp.array(ids))
    assert after.shape == before.shape
    difference = np.abs(after - before).max(axis=-1)
    words = np.array([[0, 1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 1, 0]], bool)
    assert difference[words].min() > 1e-2
    assert difference[~words].max() < 1e-5
    shorter = encode(made, made.moved, jnp.array(ids[:1, :5]))
    np.testing.assert_allclose(shorter, after[:1, :5], atol=1e-5)


def test_prompts_stand_in_every_window_with_the_bias_of_their_head():
    made = form("vpt")
    attention = made.merge(made.moved).detector.backbone.stages[1].blocks[0].attention
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 64)).astype(np.float32)  # four windows of 7 x 7
    seen = []
    prompts = attention.prompts

    def spy(qkv, key, value, bias):
        out = prompts(qkv, key, value, bias)
        seen.append(((key, value, bias), out))
        return out

    attention.prompts = spy
    attention(x)
    (key, value, bias), (more_key, more_value, more_bias) = seen[0]
    assert more_key.shape == (2, 4, 49 + 2, 2, 32)
    assert more_bias.shape == (4, 2, 49, 49 + 2)
    for old, new in ((key, more_key), (value, more_value)):
        np.testing.assert_array_equal(new[:, :, :49], old)
    np.testing.assert_array_equal(more_bias[..., :49], bias)
    _, own_key, own_value = np.split(np.asarray(attention.qkv(prompts.tokens[...])), 3, axis=-1)
    np.testing.assert_allclose(more_key[1, 3, 49:].reshape(2, 64), own_key, atol=1e-5)
    np.testing.assert_allclose(more_value[0, 2, 49:].reshape(2, 64), own_value, atol=1e-5)
    np.testing.assert_array_equal(more_bias[3, :, 5, 49:], prompts.bias[...])


def test_a_method_put_on_a_given_detector_keeps_its_parameters():
    plain = form("full")
    base = plain.merge(plain.moved)
    model = nnx.eval_shape(
        lambda detector: PizaDetector(model_config("piza_lora"), rngs=nnx.Rngs(0), detector=detector), base.detector
    )
    assert set(flatten_state(nnx.state(model, nnx.Param))) == form("piza_lora").names
