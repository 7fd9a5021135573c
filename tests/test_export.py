"""Exports of our own: whole, and the adapter alone on its base and on no other."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from flax import nnx

import piza_jax
from piza_jax.convert import export
from piza_jax.convert.load import Loaded, load_source
from piza_jax.data.tokenize import Tokenizer
from piza_jax.errors import PizaError
from piza_jax.models.config import DetectorConfig
from piza_jax.models.params import flatten_state, unflatten_state
from piza_jax.peft import select
from piza_jax.piza.detector import PizaConfig, PizaDetector
from piza_jax.piza.plain import plain_config, switch_off
from piza_jax.training.task import pretrained_parameters

TEXTS = ["The red car.", "The blue sign on the left."]


def small(**changes) -> DetectorConfig:
    tokenizer = Tokenizer.train(TEXTS, 100)
    detector = DetectorConfig.preset("tiny", delimiter_ids=tokenizer.delimiter_ids, encoder_layers=1, decoder_layers=1)
    return dataclasses.replace(detector, **changes)


def parameters(model) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in flatten_state(nnx.state(model, nnx.Param)).items()}


def perturbed(model, chosen, seed=0):
    """The model with other values in the parameters that ``chosen`` is true for."""
    state = nnx.state(model, nnx.Param)
    rng = np.random.default_rng(seed)
    values = {
        name: value + 0.1 * rng.normal(size=value.shape).astype(np.float32) if chosen(name) else value
        for name, value in parameters(model).items()
    }
    nnx.update(model, unflatten_state(state, jax.tree.map(jax.numpy.asarray, values)))
    return model


@pytest.fixture(scope="module")
def base() -> Loaded:
    model = PizaDetector(plain_config(PizaConfig(detector=small(denoising_queries=0))), rngs=nnx.Rngs(1))
    return Loaded(model, Tokenizer.train(TEXTS, 100), 24, origin="test")


@pytest.fixture(scope="module")
def tuned(base) -> Loaded:
    """The base after a fine-tuning with PIZA-Adapter+: with denoising, other adapters and other norms."""
    config = PizaConfig(detector=small(), adapter_dim=8)
    model = PizaDetector(config, rngs=nnx.Rngs(2))
    start = parameters(base.model)
    state = nnx.state(model, nnx.Param)
    nnx.update(model, unflatten_state(state, {**flatten_state(state), **start}))
    perturbed(model, lambda name: select.is_trainable("piza_adapter_plus", name))
    zoom = {"canvas_hw": (64, 64), "max_steps": 2}
    return Loaded(model, base.tokenizer, 24, origin="test", method="piza_adapter_plus", zoom=zoom)


@pytest.fixture(scope="module")
def folders(base, tuned, tmp_path_factory):
    place = tmp_path_factory.mktemp("exports")
    export.save_whole(base, place / "base")
    export.save_whole(tuned, place / "whole")
    export.save_adapter(tuned, place / "adapter", base)
    return place


def test_a_whole_export_comes_back_bit_for_bit(tuned, folders):
    assert sorted(path.name for path in (folders / "whole").iterdir()) == [
        "model.safetensors",
        "piza.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    loaded = load_source(folders / "whole")
    assert loaded.config == tuned.config
    assert (loaded.method, loaded.max_tokens, loaded.zoom) == (tuned.method, 24, tuned.zoom)
    assert loaded.tokenizer.tokens(TEXTS[1]) == tuned.tokenizer.tokens(TEXTS[1])
    ours = parameters(loaded.model)
    for name, value in parameters(tuned.model).items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


def test_an_adapter_is_small_and_laid_over_its_base_is_the_whole_model(tuned, folders):
    sizes = {name: (folders / name).joinpath(file).stat().st_size for name, file in
             (("adapter", "adapter.safetensors"), ("whole", "model.safetensors"))}  # fmt: skip
    assert sizes["adapter"] < sizes["whole"] / 4
    loaded = load_source(folders / "adapter", base=folders / "base")
    expected = {k: v for k, v in parameters(tuned.model).items() if not k.startswith("detector/denoising/")}
    ours = parameters(loaded.model)
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    assert (loaded.method, loaded.zoom) == (tuned.method, tuned.zoom)


@pytest.mark.slow
def test_switched_off_the_adapter_leaves_the_base_bit_for_bit(base, folders):
    photo = np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)
    options = {"training_free": True, "canvas_hw": (64, 64), "max_steps": 1, "batch_size": 1}
    grounder = piza_jax.load(folders / "base", **options)
    alone = grounder.ground(photo, TEXTS[0])
    adapted = load_source(folders / "adapter", base=folders / "base")
    off = switch_off(adapted.model, adapted.method, parameters(base.model))
    assert off.config.detector == base.config.detector
    grounder.update(perturbed(off, lambda name: name.endswith("memory_norm/scale")))
    assert grounder.ground(photo, TEXTS[0]) != alone
    grounder.update(switch_off(adapted.model, adapted.method, parameters(base.model)))
    assert grounder.ground(photo, TEXTS[0]) == alone


def test_another_base_is_refused(base, folders, tmp_path):
    other = PizaDetector(base.config, rngs=nnx.Rngs(1))
    perturbed(other, lambda name: name == "detector/memory_projection/kernel")
    with pytest.raises(PizaError, match="the base has not the frozen weights that it was trained on"):
        load_source(folders / "adapter", base=dataclasses.replace(base, model=other))
    bigger = PizaDetector(plain_config(PizaConfig(detector=small(denoising_queries=0, hidden=512))), rngs=nnx.Rngs(1))
    with pytest.raises(PizaError, match="is another detector: hidden is 512, not 256"):
        load_source(folders / "adapter", base=dataclasses.replace(base, model=bigger))
    with pytest.raises(PizaError, match="an adapter without its base; give the base"):
        load_source(folders / "adapter")


def test_norms_that_the_method_trains_may_differ_in_the_base(base, folders):
    """They are the adapter's own, so the hash leaves them out."""
    other = PizaDetector(base.config, rngs=nnx.Rngs(1))
    perturbed(other, lambda name: name == "detector/memory_norm/scale")
    loaded = load_source(folders / "adapter", base=dataclasses.replace(base, model=other))
    ours, expected = parameters(loaded.model), parameters(load_source(folders / "adapter", base=base).model)
    for name, value in expected.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


def test_an_adapter_of_a_model_that_was_not_trained_from_the_base_is_not_written(base, tuned, tmp_path):
    other = PizaDetector(base.config, rngs=nnx.Rngs(5))
    with pytest.raises(PizaError, match="was not trained from this base: .* frozen arrays differ"):
        export.save_adapter(tuned, tmp_path / "adapter", dataclasses.replace(base, model=other))
    deeper = export.abstract_detector(plain_config(PizaConfig(detector=small(denoising_queries=0, encoder_layers=2))))
    with pytest.raises(PizaError, match="the base is another detector: encoder_layers is 2, not 1"):
        export.save_adapter(tuned, tmp_path / "adapter", dataclasses.replace(base, model=deeper))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PizaError, match="has no adapter to save alone"):
        export.save_adapter(base, tmp_path / "adapter")


def test_a_folder_in_use_is_not_overwritten_and_a_failed_export_leaves_nothing(base, folders, tmp_path, monkeypatch):
    with pytest.raises(PizaError, match="exists; give a new folder"):
        export.save_whole(base, folders / "whole")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "save_file", full)
    with pytest.raises(PizaError, match="cannot write .*target.*No space left"):
        export.save_whole(base, tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_damaged_exports_are_named(folders, tmp_path):
    place = tmp_path / "bent"
    shutil.copytree(folders / "whole", place)
    about = json.loads((place / "piza.json").read_text())
    about["model"]["detector"]["hidden"] = 128
    (place / "piza.json").write_text(json.dumps(about))
    with pytest.raises(PizaError, match=r"bent/model\.safetensors belongs to another configuration"):
        load_source(place)
    (place / "piza.json").write_text(json.dumps({**about, "format": 99}))
    with pytest.raises(PizaError, match="has the format 99; this version reads 1"):
        load_source(place)
    (place / "piza.json").write_text("{")
    with pytest.raises(PizaError, match=r"cannot read .*piza\.json"):
        load_source(place)


def test_an_export_is_something_to_train_from(base, folders):
    config = PizaConfig(detector=small(), adapter_dim=8)
    names = flatten_state(nnx.state(nnx.eval_shape(lambda: PizaDetector(config, rngs=nnx.Rngs(0))), nnx.Param))
    given = pretrained_parameters(str(folders / "base"), config, names)
    assert given.keys() == parameters(base.model).keys()
    other = dataclasses.replace(config, detector=small(class_scale=False))
    with pytest.raises(PizaError, match="class_scale is True, not False"):
        pretrained_parameters(str(folders / "base"), other, names)


def test_sources_that_are_none(tmp_path):
    with pytest.raises(PizaError, match="there is nothing at"):
        load_source(tmp_path / "nowhere" / "deep")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PizaError, match=r"is no model: it has neither piza\.json .* nor config\.json"):
        load_source(tmp_path / "empty")


def test_a_hub_name_without_network_says_what_to_do(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import huggingface_hub

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(PizaError, match="the hub gave no model of that name .*give a local path"):
        load_source("some-owner/some-model")
