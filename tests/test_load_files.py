"""Weight files of the releases by one word: recognised, laid over their base, and refused when they do not belong."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

import piza_jax
from piza_jax.convert import idea, mmdet
from piza_jax.convert.check import written
from piza_jax.convert.load import load_source
from piza_jax.errors import PizaError
from piza_jax.models.config import DetectorConfig
from piza_jax.models.params import flatten_state
from piza_jax.peft import select
from piza_jax.piza.detector import PizaConfig, PizaDetector
from piza_jax.piza.plain import plain_config
from tests.torch_models import torch

MM = DetectorConfig.preset("tiny", encoder_layers=1, decoder_layers=2)
# As a file without configuration is read: 64 channels for each head of BERT, half the heads for the text, the recipe's
# denoising queries.
MM = dataclasses.replace(
    MM, bert=dataclasses.replace(MM.bert, heads=1), text_heads=2, fusion_heads=2, denoising_queries=100
)
ORIGINAL = dataclasses.replace(
    MM,
    class_bias=False,
    class_scale=False,
    shared_box_head=True,
    refine_eps=1e-3,
    output_eps=1e-3,
    denoising_queries=0,
)


def save(tensors: dict[str, np.ndarray], path, inside: str):
    torch.save({inside: {name: torch.tensor(value) for name, value in tensors.items()}}, path)
    return path


def parameters(model) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in flatten_state(nnx.state(model, nnx.Param)).items()}


def assert_equal(ours, expected):
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


@pytest.fixture(scope="module")
def piza() -> PizaDetector:
    """MM-GroundingDINO with PIZA as released: each image-side adapter projects the zoom embedding."""
    return PizaDetector(PizaConfig(detector=MM, adapter_dim=8, zoom_projection="per_adapter"), rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def files(piza, tmp_path_factory):
    """A whole file, and its two parts: the detector below, with other norms, and what PIZA trained."""
    folder = tmp_path_factory.mktemp("releases")
    whole = written(piza, mmdet.MMDET)
    base = PizaDetector(plain_config(piza.config), rngs=nnx.Rngs(1))
    frozen = written(base, mmdet.MMDET)
    words = ("adapter1", "adapter2", "norm", "LayerNorm", "zoom_embedding", "bbox_encoder")  # the release's own rule
    adapter = {name: value for name, value in whole.items() if any(word in name for word in words)}
    below = {name: value + (1 if "norm" in name.lower() else 0) for name, value in whole.items() if name in frozen}
    return {
        "whole": save(whole, folder / "whole.pth", "state_dict"),
        "base": save(below, folder / "mm.pth", "state_dict"),
        "adapter": save(adapter, folder / "piza_adapter.pth", "state_dict"),
    }


def test_mmdetections_file_with_piza_in_it(piza, files):
    loaded = load_source(files["whole"])
    assert (loaded.origin, loaded.method, loaded.max_tokens) == ("mmdet", "piza_adapter_plus", 256)
    assert loaded.config == piza.config
    assert_equal(parameters(loaded.model), parameters(piza))


def test_the_released_adapter_on_its_base_is_the_whole_model(piza, files):
    loaded = load_source(files["adapter"], base=files["base"])
    assert (loaded.origin, loaded.method) == ("piza_adapter", "piza_adapter_plus")
    assert loaded.config == piza.config
    assert_equal(parameters(loaded.model), parameters(piza))
    base = load_source(files["base"])
    assert base.method == "none"
    scale = "detector/decoder/norm/scale"
    np.testing.assert_array_equal(parameters(base.model)[scale], parameters(piza)[scale] + 1)
    assert select.is_trainable("piza_adapter_plus", scale)


def test_an_adapter_without_its_base_or_on_another_is_refused(files, tmp_path):
    with pytest.raises(PizaError, match="give base=, the MM-GroundingDINO checkpoint below them"):
        load_source(files["adapter"])
    other = PizaDetector(plain_config(PizaConfig(detector=dataclasses.replace(MM, dim=64, heads=2))), rngs=nnx.Rngs(0))
    path = save(written(other, mmdet.MMDET), tmp_path / "other.pth", "state_dict")
    with pytest.raises(PizaError, match="of another shape"):
        load_source(files["adapter"], base=path)


def test_the_original_release(tmp_path):
    model = PizaDetector(plain_config(PizaConfig(detector=ORIGINAL)), rngs=nnx.Rngs(0))
    tensors = {f"module.{name}": value for name, value in written(model, idea.IDEA).items()}
    tensors["module.bert.pooler.dense.bias"] = np.zeros(64, np.float32)
    loaded = load_source(save(tensors, tmp_path / "groundingdino.pth", "model"))
    assert (loaded.origin, loaded.method) == ("idea", "none")
    found = loaded.config.detector
    unread = {"label_classes": found.label_classes, "shared_class_head": found.shared_class_head}  # it has neither
    assert found == dataclasses.replace(ORIGINAL, **unread)
    assert_equal(parameters(loaded.model), parameters(model))
    assert list(loaded.ignored) == ["bert.pooler.dense.bias"]


def test_files_that_are_no_detector(files, tmp_path):
    path = save({"layer1.weight": np.zeros((3, 3), np.float32)}, tmp_path / "resnet.pth", "model")
    with pytest.raises(PizaError, match=r"resnet\.pth is of no code base .*: it begins with layer1\.weight"):
        load_source(path)
    tensors = written(PizaDetector(plain_config(PizaConfig(detector=MM)), rngs=nnx.Rngs(0)), mmdet.MMDET)
    del tensors["memory_trans_fc.weight"]
    with pytest.raises(PizaError, match=r"bent\.pth does not fit .*detector/memory_projection/kernel"):
        load_source(save(tensors, tmp_path / "bent.pth", "state_dict"))


def test_a_source_without_a_tokenizer_says_so_when_it_is_used(files, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert load_source(files["whole"]).tokenizer is None
    with pytest.raises(PizaError, match=r"ships no tokenizer; give tokenizer=FOLDER"):
        piza_jax.load(files["whole"])
    with pytest.raises(PizaError, match="tokenizer"):
        piza_jax.load(files["whole"], tokenizer=tmp_path)
