"""transformers' two detectors, live: the same numbers at every stage, and back without a bit of difference."""

import dataclasses
import json

import numpy as np
import pytest
from flax import nnx

from piza_jax.convert import export, hugging_face, report
from piza_jax.convert.load import load_source
from piza_jax.errors import PizaError
from piza_jax.models.config import DetectorConfig
from piza_jax.models.params import flatten_state
from piza_jax.piza.abstract import abstract_detector
from piza_jax.piza.detector import PizaDetector
from tests import figures, torch_models
from tests.torch_models import torch

APART = {"decoder_bbox_embed_share": False, "decoder_cls_embed_share": False}
FORMS = {
    "grounding dino": ("grounding-dino", {}),
    "grounding dino, own box heads": ("grounding-dino", {"decoder_bbox_embed_share": False}),
    "mm": ("mm-grounding-dino", APART),
    "mm, shared heads": ("mm-grounding-dino", {}),
    "mm, five levels from the first stage on": (
        "mm-grounding-dino",
        {**APART, "num_feature_levels": 5, "swin": {**torch_models.TINY_SWIN, "out_indices": [1, 2, 3, 4]}},
    ),
}


def largest(rows, name):
    """Largest error of stages; keeps it for the summary."""
    error = max(row.error for row in rows)
    figures.note(f"transformers: {name}, any stage, absolute", error)
    return error


def parameters(model: PizaDetector) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in flatten_state(nnx.state(model, nnx.Param)).items()}


@pytest.fixture(scope="module", params=FORMS, ids=lambda name: name.replace(" ", "-"))
def pair(request, tmp_path_factory):
    """A transformers model, the folder that it was saved to, and ours loaded from there."""
    kind, sizes = FORMS[request.param]
    reference = torch_models.build(kind, **sizes)
    folder = torch_models.save(reference, tmp_path_factory.mktemp("source") / "model")
    return reference, folder, load_source(folder)


@pytest.mark.slow
def test_every_stage_agrees_with_padding_and_several_phrases(pair):
    reference, _, loaded = pair
    rows = report.compare(loaded.model, reference, report.example_inputs(30522, torch_models.SPECIAL))
    assert len(rows) == 1 + loaded.config.detector.levels + 2 * 2 + 4 + 2 * 3
    assert largest(rows, "tiny") <= 1e-4, report.table(rows)
    assert min(row.scale for row in rows) > 0.5  # numbers that say something


def test_back_and_forth_changes_no_bit_and_leaves_no_key_over(pair, tmp_path):
    reference, _, loaded = pair
    export.save_hugging_face(loaded, tmp_path / "back")
    again = load_source(tmp_path / "back")
    assert again.config == loaded.config
    assert again.max_tokens == loaded.max_tokens
    ours, ours_again = parameters(loaded.model), parameters(again.model)
    assert ours.keys() == ours_again.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(ours_again[name], value, err_msg=name)
    theirs, info = type(reference).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(info.values()), info
    found = dict(theirs.named_parameters())
    for name, value in reference.named_parameters():
        if ".swin.layernorm." not in name:  # the backbone's final norm, which nothing uses
            assert torch.equal(found[name], value), name


def test_report_of_the_command_line_compares_with_the_source_itself(pair):
    _, folder, loaded = pair
    if loaded.config.detector.class_bias and loaded.config.detector.levels == 4:
        text = report.table(report.against_transformers(loaded, folder))
        assert text.splitlines()[0].split() == ["stage", "largest", "error", "largest", "value"]
        assert "decoder layer 2, boxes" in text


@pytest.mark.slow
def test_captions_of_256_tokens(tmp_path):
    reference = torch_models.build("mm-grounding-dino", **APART)
    loaded = load_source(torch_models.save(reference, tmp_path / "model"))
    inputs = report.example_inputs(30522, torch_models.SPECIAL, (96, 128), 256)
    assert inputs.token_mask.sum(1).tolist() == [256, 128]
    rows = report.compare(loaded.model, reference, inputs)
    assert largest(rows, "tiny, 256 tokens") <= 1e-4, report.table(rows)


@pytest.mark.slow
def test_bfloat16_error_is_measured(tmp_path):
    reference = torch_models.build("mm-grounding-dino", **APART)
    exact = load_source(torch_models.save(reference, tmp_path / "model")).model
    low_config = dataclasses.replace(exact.config.detector, dtype="bfloat16")
    rough = abstract_detector(dataclasses.replace(exact.config, detector=low_config))
    nnx.update(rough, nnx.state(exact, nnx.Param))
    inputs = report.example_inputs(30522, torch_models.SPECIAL, (96, 128))
    values, low = report.stages(exact, inputs), report.stages(rough, inputs)
    errors = {
        name: float(np.linalg.norm(np.float32(low[name]) - values[name]) / np.linalg.norm(values[name]))
        for name in values
        if name.startswith(("BERT", "feature", "enhancer"))
    }
    figures.note("bfloat16: features of the worst stage, relative", max(errors.values()))
    assert 1e-4 < max(errors.values()) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "swin"),
    [("mm-grounding-dino", None), ("grounding-dino", torch_models.SWIN_B)],
    ids=["mm-swin-t", "grounding-dino-swin-b"],
)
def test_full_size(kind, swin, tmp_path):
    reference = torch_models.full(kind, swin)
    loaded = load_source(torch_models.save(reference, tmp_path / "model"))
    count = sum(value.size for value in parameters(loaded.model).values())
    preset = DetectorConfig.preset("swin_b" if swin else "swin_t")
    assert loaded.config.detector.swin == preset.swin
    # transformers keeps no label embedding of denoising queries (256 x 256).
    assert swin or count == 172_977_693 - 256 * 256
    inputs = report.example_inputs(30522, torch_models.SPECIAL, (256, 320), 256)
    rows = report.compare(loaded.model, reference, inputs)
    assert largest(rows, f"full size {kind}") <= 1e-3, report.table(rows)


# Configurations.


@pytest.mark.parametrize("kind", ["grounding-dino", "mm-grounding-dino"])
@pytest.mark.parametrize("preset", ["swin_t", "swin_b", "swin_l"])
def test_config_json_says_what_was_read(kind, preset):
    mm = kind == "mm-grounding-dino"
    variant = {"refine_eps": 1e-5, "denoising_queries": 0, "class_bias": mm, "class_scale": mm, "shared_class_head": mm}
    config = DetectorConfig.preset(preset, **variant)
    values = json.loads(json.dumps(hugging_face.config_json(config, 200)))
    assert values["model_type"] == kind
    assert values["max_text_len"] == 200
    read = hugging_face.read_config(values, "there")
    assert read == dataclasses.replace(config, shared_class_head=read.shared_class_head)
    theirs = torch_models.CLASSES[kind][0](**values)
    assert hugging_face.read_config(theirs.to_dict(), "there") == read


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "detr", "architectures": ["DetrForObjectDetection"]}, "describes DetrForObjectDetection; "),
        ({"two_stage": False}, "two_stage is False, not True"),
        ({"activation_function": "gelu"}, "activation_function is 'gelu', not 'relu'"),
        ({"decoder_ffn_dim": 100}, "encoder_ffn_dim is 2048 and decoder_ffn_dim 100"),
        ({"backbone_config": {"model_type": "resnet"}}, r"backbone_config\.model_type is 'resnet', not 'swin'"),
        ({"text_config": {"model_type": "bert", "hidden_act": "relu"}}, r"text_config\.hidden_act is 'relu'"),
        ({"backbone_config": {"model_type": "swin", "out_indices": [1, 2, 3]}}, "must run to the last stage"),
    ],
)
def test_another_architecture_is_named(changes, message):
    with pytest.raises(PizaError, match=message):
        hugging_face.read_config({"model_type": "grounding-dino", **changes}, "x/config.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_scale": False}, "only one of class_bias and class_scale"),
        ({"text_hidden": 77}, r"model\.detector\.text_hidden is 77; transformers takes half of 2048"),
        ({"delimiter_ids": (2, 3, 4, 5)}, "cannot be exported"),
    ],
)
def test_what_transformers_cannot_hold_is_not_exported(changes, message):
    with pytest.raises(PizaError, match=message):
        hugging_face.config_json(DetectorConfig(**changes), 256)


# Files as they come.


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    reference = torch_models.build("grounding-dino")
    return torch_models.save(reference, tmp_path_factory.mktemp("files") / "model"), reference


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_are_widened_exactly(source, tmp_path, dtype):
    _, reference = source
    kind = getattr(torch, dtype)
    half = type(reference)(reference.config)
    half.load_state_dict(reference.state_dict())
    loaded = load_source(torch_models.save(half.to(kind), tmp_path / "half"))
    kernel = parameters(loaded.model)["detector/memory_projection/kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel.T, half.model.enc_output.weight.detach().float().numpy())


def test_sharded_weights_are_the_same(source, tmp_path):
    folder, reference = source
    shards = torch_models.save(reference, tmp_path / "shards", max_shard_size="1MB")
    assert len(list(shards.glob("*.safetensors"))) > 3
    ours, theirs = (parameters(load_source(place).model) for place in (folder, shards))
    for name, value in ours.items():
        np.testing.assert_array_equal(theirs[name], value, err_msg=name)


def test_old_files_repeat_tensors_and_hold_buffers(source, tmp_path):
    from safetensors.numpy import load_file, save_file

    folder, _ = source
    tensors = load_file(folder / "model.safetensors")
    old = dict(tensors)
    for name, value in tensors.items():
        if name.startswith("bbox_embed.0."):
            for layer in range(3):
                old[name.replace(".0.", f".{layer}.", 1)] = value
                old["model.decoder." + name.replace(".0.", f".{layer}.", 1)] = value
    old["model.text_backbone.embeddings.position_ids"] = np.arange(512)[None]
    old["model.text_backbone.pooler.dense.weight"] = np.zeros((40, 40), np.float32)
    place = tmp_path / "old"
    place.mkdir()
    (place / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(old, place / "model.safetensors")
    loaded = load_source(place)
    assert loaded.ignored["model.decoder.bbox_embed.2.layers.1.bias"] == "a repetition of bbox_embed.0.layers.1.bias"
    assert loaded.ignored["model.text_backbone.pooler.dense.weight"].startswith("BERT's pooler")
    old["bbox_embed.1.layers.0.bias"] = old["bbox_embed.1.layers.0.bias"] + 1
    save_file(old, place / "model.safetensors")
    with pytest.raises(PizaError, match=r"bbox_embed\.1\.layers\.0\.bias differs from bbox_embed\.0"):
        load_source(place)


def test_left_over_tensors_and_other_sizes_are_listed(source, tmp_path):
    from safetensors.numpy import load_file, save_file

    folder, _ = source
    tensors = load_file(folder / "model.safetensors")
    tensors["model.unheard_of"] = np.zeros(3, np.float32)
    tensors["model.enc_output.bias"] = np.zeros(9, np.float32)
    tensors["model.level_embed"] = np.zeros((4, 64), np.int32)
    del tensors["model.text_projection.weight"]
    place = tmp_path / "bent"
    place.mkdir()
    (place / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(tensors, place / "model.safetensors")
    with pytest.raises(PizaError) as error:
        load_source(place)
    text = str(error.value)
    assert str(place) in text
    assert "1 tensors without a place in the model: model.unheard_of" in text
    assert "detector/memory_projection/bias (64,) from model.enc_output.bias (9,)" in text
    assert "1 tensors that hold no floating point numbers: model.level_embed int32" in text
    assert "detector/text_projection/kernel (from model.text_projection.weight)" in text
