"""The original release's names: the same weights as by transformers' names, both ways; sizes read from shapes."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from piza_jax.convert import check, hugging_face, idea, mmdet
from piza_jax.convert.lazy import shapes_of
from piza_jax.convert.tensors import open_weights
from piza_jax.errors import PizaError
from piza_jax.models.config import DetectorConfig
from piza_jax.piza.abstract import abstract_detector
from piza_jax.piza.detector import PizaConfig, PizaDetector
from tests import goldens

# transformers' name -> the original's, from its model code; {thirds} are held end to end in one tensor there.
SWIN, BLOCK = r"model\.backbone\.conv_encoder\.model", r"\.encoder\.layers\.(\d+)\.blocks\.(\d+)"
LAYER, DECODER = r"model\.encoder\.layers\.(\d+)", r"model\.decoder\.layers\.(\d+)"
PAIRS = [
    (SWIN + r"\.embeddings\.patch_embeddings\.projection", "backbone.0.patch_embed.proj"),
    (SWIN + r"\.embeddings\.norm", "backbone.0.patch_embed.norm"),
    (SWIN + r"\.encoder\.layers\.(\d+)\.downsample\.(norm|reduction)", r"backbone.0.layers.\1.downsample.\2"),
    (SWIN + r"\.hidden_states_norms\.stage2", "backbone.0.norm1"),
    (SWIN + r"\.hidden_states_norms\.stage3", "backbone.0.norm2"),
    (SWIN + r"\.hidden_states_norms\.stage4", "backbone.0.norm3"),
    (SWIN + BLOCK + r"\.layernorm_before", r"backbone.0.layers.\1.blocks.\2.norm1"),
    (SWIN + BLOCK + r"\.layernorm_after", r"backbone.0.layers.\1.blocks.\2.norm2"),
    (SWIN + BLOCK + r"\.attention\.self\.(query|key|value)", r"backbone.0.layers.\1.blocks.\2.attn.qkv#\3."),
    (SWIN + BLOCK + r"\.attention\.self", r"backbone.0.layers.\1.blocks.\2.attn"),
    (SWIN + BLOCK + r"\.attention\.output\.dense", r"backbone.0.layers.\1.blocks.\2.attn.proj"),
    (SWIN + BLOCK + r"\.intermediate\.dense", r"backbone.0.layers.\1.blocks.\2.mlp.fc1"),
    (SWIN + BLOCK + r"\.output\.dense", r"backbone.0.layers.\1.blocks.\2.mlp.fc2"),
    (r"model\.input_proj_vision\.(\d\.[01])", r"input_proj.\1"),
    (r"model\.text_backbone\.(.*)", r"bert.\1"),
    (r"model\.text_projection", "feat_map"),
    (LAYER + r"\.text_enhancer_layer\.self_attn\.(query|key|value)",
     r"transformer.encoder.text_layers.\1.self_attn.in_proj#\2_"),
    (LAYER + r"\.text_enhancer_layer\.self_attn\.out_proj", r"transformer.encoder.text_layers.\1.self_attn.out_proj"),
    (LAYER + r"\.text_enhancer_layer\.fc([12])", r"transformer.encoder.text_layers.\1.linear\2"),
    (LAYER + r"\.text_enhancer_layer\.layer_norm_before", r"transformer.encoder.text_layers.\1.norm1"),
    (LAYER + r"\.text_enhancer_layer\.layer_norm_after", r"transformer.encoder.text_layers.\1.norm2"),
    (LAYER + r"\.fusion_layer\.layer_norm_vision", r"transformer.encoder.fusion_layers.\1.layer_norm_v"),
    (LAYER + r"\.fusion_layer\.layer_norm_text", r"transformer.encoder.fusion_layers.\1.layer_norm_l"),
    (LAYER + r"\.fusion_layer\.attn\.(\w*?)vision_proj", r"transformer.encoder.fusion_layers.\1.attn.\2v_proj"),
    (LAYER + r"\.fusion_layer\.attn\.(\w*?)text_proj", r"transformer.encoder.fusion_layers.\1.attn.\2l_proj"),
    (LAYER + r"\.deformable_layer\.self_attn\.(\w+)", r"transformer.encoder.layers.\1.self_attn.\2"),
    (LAYER + r"\.deformable_layer\.self_attn_layer_norm", r"transformer.encoder.layers.\1.norm1"),
    (LAYER + r"\.deformable_layer\.fc([12])", r"transformer.encoder.layers.\1.linear\2"),
    (LAYER + r"\.deformable_layer\.final_layer_norm", r"transformer.encoder.layers.\1.norm2"),
    (DECODER + r"\.self_attn\.(query|key|value)", r"transformer.decoder.layers.\1.self_attn.in_proj#\2_"),
    (DECODER + r"\.self_attn\.out_proj", r"transformer.decoder.layers.\1.self_attn.out_proj"),
    (DECODER + r"\.self_attn_layer_norm", r"transformer.decoder.layers.\1.norm2"),
    (DECODER + r"\.encoder_attn_text\.(query|key|value)", r"transformer.decoder.layers.\1.ca_text.in_proj#\2_"),
    (DECODER + r"\.encoder_attn_text\.out_proj", r"transformer.decoder.layers.\1.ca_text.out_proj"),
    (DECODER + r"\.encoder_attn_text_layer_norm", r"transformer.decoder.layers.\1.catext_norm"),
    (DECODER + r"\.encoder_attn\.(\w+)", r"transformer.decoder.layers.\1.cross_attn.\2"),
    (DECODER + r"\.encoder_attn_layer_norm", r"transformer.decoder.layers.\1.norm1"),
    (DECODER + r"\.fc([12])", r"transformer.decoder.layers.\1.linear\2"),
    (DECODER + r"\.final_layer_norm", r"transformer.decoder.layers.\1.norm3"),
    (r"model\.decoder\.layer_norm", "transformer.decoder.norm"),
    (r"model\.decoder\.reference_points_head\.layers\.([01])", r"transformer.decoder.ref_point_head.layers.\1"),
    (r"(?:model\.decoder\.)?bbox_embed\.\d+\.layers\.(\d)", r"bbox_embed.0.layers.\1"),
    (r"model\.encoder_output_bbox_embed\.layers\.(\d)", r"transformer.enc_out_bbox_embed.layers.\1"),
    (r"model\.enc_output", "transformer.enc_output"),
    (r"model\.enc_output_norm", "transformer.enc_output_norm"),
    (r"model\.query_position_embeddings", "transformer.tgt_embed"),
]  # fmt: skip
WHOLE = [
    (LAYER + r"\.fusion_layer\.vision_param", r"transformer.encoder.fusion_layers.\1.gamma_v"),
    (LAYER + r"\.fusion_layer\.text_param", r"transformer.encoder.fusion_layers.\1.gamma_l"),
    (r"model\.level_embed", "transformer.level_embed"),
]
THIRDS = ("query", "key", "value")
DECODER_LAYERS = 2
# How the original differs from the defaults, which are MM-GroundingDINO's.
VARIANT = {
    "class_bias": False,
    "class_scale": False,
    "shared_box_head": True,
    "shared_class_head": True,
    "denoising_queries": 0,
}


def renamed(tensors: dict) -> dict:
    """transformers' tensors -> the original's, with every repetition that its state dict has."""
    theirs, thirds = {}, {}
    for name, tensor in tensors.items():
        for pattern, template in WHOLE:
            if found := re.fullmatch(pattern, name):
                theirs[found.expand(template)] = tensor
        module, _, leaf = name.rpartition(".")
        for pattern, template in PAIRS:
            if found := re.fullmatch(pattern, module):
                new, _, part = found.expand(template).partition("#")
                if part:
                    thirds.setdefault(new + part[-1] + leaf, {})[part[:-1]] = tensor
                else:
                    theirs[f"{new}.{leaf}"] = tensor
    for name, parts in thirds.items():
        theirs[name] = np.concatenate([parts[part] for part in THIRDS])
    heads = {name: tensor for name, tensor in theirs.items() if name.startswith("bbox_embed.0.")}
    for layer in range(DECODER_LAYERS):
        for name, tensor in heads.items():
            repeated = name.replace(".0.", f".{layer}.", 1)
            theirs |= {repeated: tensor, "transformer.decoder." + repeated: tensor}
    return theirs


@pytest.fixture(scope="module")
def hugging_face_folder(tmp_path_factory):
    torch = pytest.importorskip("torch", reason="the parity extra is not installed")
    transformers = pytest.importorskip("transformers", reason="the parity extra is not installed")
    swin = {"model_type": "swin", "embed_dim": 32, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 5}
    text = {"model_type": "bert", "vocab_size": 60, "hidden_size": 128, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "intermediate_size": 96, "max_position_embeddings": 40}
    config = transformers.GroundingDinoConfig(
        backbone_config=swin | {"out_indices": [2, 3, 4], "out_features": ["stage2", "stage3", "stage4"]},
        text_config=text,
        d_model=64,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=96,
        decoder_ffn_dim=96,
        encoder_layers=2,
        decoder_layers=DECODER_LAYERS,
        num_queries=10,
    )
    torch.manual_seed(0)
    model = transformers.GroundingDinoForObjectDetection(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    folder = tmp_path_factory.mktemp("hugging_face")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def idea_file(hugging_face_folder, tmp_path_factory):
    import torch

    tensors = renamed(dict(open_weights(hugging_face_folder)))
    extra = {
        "bert.pooler.dense.weight": np.ones((128, 128), np.float32),
        "bert.embeddings.position_ids": np.arange(40)[None],
        "backbone.0.layers.0.blocks.0.attn.relative_position_index": np.zeros((25, 25), np.int64),
    }
    path = tmp_path_factory.mktemp("idea") / "groundingdino_swint_ogc.pth"
    held = {"module." + name: torch.from_numpy(array) for name, array in (tensors | extra).items()}
    torch.save({"model": held}, path)
    return path


def flat(model: PizaDetector) -> dict[str, np.ndarray]:
    return {
        "/".join(map(str, path)): np.asarray(leaf.get_value())
        for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))
    }


def bare(detector: DetectorConfig) -> PizaDetector:
    return abstract_detector(PizaConfig(detector=detector, adapter="none", history=False))


@pytest.fixture(scope="module")
def idea_model(idea_file):
    weights = open_weights(idea_file)
    model = bare(idea.infer_config(weights.shapes))
    return model, idea.load_tensors(model, weights), weights


def test_sizes_are_those_of_transformers_config(hugging_face_folder, idea_file):
    config = hugging_face.read_config(json.loads((hugging_face_folder / "config.json").read_text()), "config.json")
    found = idea.infer_config(open_weights(idea_file).shapes)
    # The original clamps the inverse sigmoid of its refinement at 1e-3, transformers' port at 1e-5.
    assert (found.refine_eps, found.output_eps) == (1e-3, 1e-3)
    assert dataclasses.replace(found, refine_eps=1e-5, output_eps=1e-5) == config


def test_every_parameter_is_the_one_of_the_route_over_transformers(hugging_face_folder, idea_model):
    other = bare(idea_model[0].config.detector)
    check.fill(other, open_weights(hugging_face_folder), hugging_face.names(True, True))
    ours, theirs = flat(idea_model[0]), flat(other)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
        assert len(np.unique(array)) > 1 or array.size == 1, name


def test_writing_gives_the_file_back(idea_model):
    model, left, weights = idea_model
    back = check.written(model, idea.IDEA)
    assert back.keys() == weights.keys() - left.keys()
    assert check.written_shapes(model, idea.IDEA) == {name: array.shape for name, array in back.items()}
    for name, array in back.items():
        np.testing.assert_array_equal(array, weights[name], err_msg=name)
    repeats = [name for name, reason in left.items() if "repetition" in reason]
    # Six tensors of one head: once more for the second layer, and for both layers below the decoder.
    assert len(repeats) == 6 * 3
    assert {name: reason for name, reason in left.items() if name not in repeats} == {
        "bert.pooler.dense.weight": "BERT's pooler, which the detector never uses",
        "bert.embeddings.position_ids": "a constant buffer",
        "backbone.0.layers.0.blocks.0.attn.relative_position_index": "a constant buffer",
    }


def test_heads_that_differ_between_layers_are_an_error(idea_model):
    model, _, weights = idea_model
    other = dict(weights) | {"bbox_embed.1.layers.0.bias": np.zeros(64, np.float32)}
    with pytest.raises(PizaError, match=r"1 tensors that should repeat others and do not: bbox_embed\.1\.layers\.0\.b"):
        idea.load_tensors(model, other)


def test_label_embedding_serves_denoising_and_is_named_without_it(idea_model):
    _, _, weights = idea_model
    labels = np.random.default_rng(0).normal(size=(91, 64)).astype(np.float32)
    tensors = dict(weights) | {"label_enc.weight": labels}
    config = idea.infer_config(shapes_of(tensors))
    assert (config.label_classes, config.denoising_queries) == (91, 0)
    assert "denoising" in idea.load_tensors(bare(config), tensors)["label_enc.weight"]
    model = bare(dataclasses.replace(config, denoising_queries=10))
    assert "label_enc.weight" not in idea.load_tensors(model, tensors)
    np.testing.assert_array_equal(flat(model)["detector/denoising/label_embedding/embedding"], labels)


FULL = [
    ("idea", "swin_t", 858, 172_249_090),
    ("idea", "swin_b", 1014, 232_313_216),
    ("mmdet", "swin_t", 896, 172_977_693),
    ("mmdet", "swin_b", 1052, 233_041_819),
    ("mmdet", "swin_l", 1058, 343_118_167),
]


@pytest.mark.parametrize(("release", "size", "tensors", "parameters"), FULL, ids=[f"{r}-{s}" for r, s, _, _ in FULL])
def test_full_sizes_are_read_from_shapes(release, size, tensors, parameters):
    original = release == "idea"
    wanted = DetectorConfig.preset(size, **(VARIANT | {"refine_eps": 1e-3, "output_eps": 1e-3} if original else {}))
    shapes = check.written_shapes(bare(wanted), idea.IDEA if original else mmdet.MMDET)
    assert (len(shapes), sum(map(math.prod, shapes.values()))) == (tensors, parameters)
    found = idea.infer_config(shapes) if original else mmdet.infer_config(shapes)
    assert found == (wanted if original else PizaConfig(detector=wanted, adapter="none", history=False))


def test_what_shapes_contradict_is_named(idea_file):
    shapes = dict(open_weights(idea_file).shapes)
    with pytest.raises(PizaError, match=r"holds no tensor backbone\.patch_embed\.projection\.weight, so it is not of"):
        mmdet.infer_config(shapes)
    with pytest.raises(PizaError, match=r"attention weights of 3 heads on 4 levels; give heads: 32 is no multiple"):
        idea.infer_config(shapes, heads=3)
    with pytest.raises(PizaError, match="level embedding has 5 rows, but there are projections of 4 levels"):
        idea.infer_config(shapes | {"transformer.level_embed": (5, 64)})
    with pytest.raises(PizaError, match=r"relative positions .*\(82, 1\)"):
        idea.infer_config(shapes | {"backbone.0.layers.0.blocks.0.attn.relative_position_bias_table": (82, 1)})
    assert idea.infer_config(shapes, heads=4, bert_heads=8).bert.heads == 8
    assert idea.infer_config(shapes, heads=4).points == 2


@pytest.mark.parametrize("name", ["mmdet_grounding_dino_b1", "mmdet_piza_adapter_b1"])
def test_sizes_of_the_reference_runs(shared_dir, name):
    meta, _ = goldens.load(shared_dir, name)
    # The reference's fusion does not mask padding tokens, which shapes do not tell.
    wanted = goldens.config_of(meta, mask_fusion_text=True)
    if not meta["config"]["piza"]:
        wanted = dataclasses.replace(wanted, adapter_dim=256, zoom_projection="shared")
    assert mmdet.infer_config(meta["params"], bert_heads=4) == wanted


def released_adapter(params: dict) -> dict[str, np.ndarray]:
    """What the released rule trains, moved off the base's values."""
    words = ("adapter1", "adapter2", "norm", "LayerNorm", "zoom_embedding", "bbox_encoder")
    return {
        name: goldens.recipe(name, shape) + 1 for name, shape in params.items() if any(word in name for word in words)
    }


def test_adapter_file_over_a_base(shared_dir, tmp_path):
    meta, _ = goldens.load(shared_dir, "mmdet_piza_adapter_b1")
    every = {name: goldens.recipe(name, shape) for name, shape in meta["params"].items()}
    base = {name: array for name, array in every.items() if not re.search(mmdet._PIZA_NAMES, name)}
    adapter = released_adapter(meta["params"])
    save_file(base, tmp_path / "base.safetensors")
    save_file(adapter, tmp_path / "piza_adapter.safetensors")
    files = (open_weights(tmp_path / f"{name}.safetensors") for name in ("base", "piza_adapter"))
    both = mmdet.overlay(*files)
    assert mmdet.infer_config(both.shapes, bert_heads=4) == mmdet.infer_config(meta["params"], bert_heads=4)
    model, expected = (abstract_detector(mmdet.infer_config(both.shapes, bert_heads=4)) for _ in range(2))
    mmdet.load_tensors(model, both)
    mmdet.load_tensors(expected, every | adapter)
    ours, theirs = flat(model), flat(expected)
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
    with pytest.raises(PizaError, match=r"brings 1 tensors that the base does not have \(backbone\.norm9\.weight\)"):
        mmdet.overlay(base, adapter | {"backbone.norm9.weight": np.ones(3, np.float32)})
    with pytest.raises(PizaError, match=r"1 tensors of another shape \(backbone\.norm3\.weight \(3,\) for \(256,\)\)"):
        mmdet.overlay(base, adapter | {"backbone.norm3.weight": np.ones(3, np.float32)})


def test_adapters_without_zoom_embedding_and_of_two_widths(shared_dir):
    params = goldens.load(shared_dir, "mmdet_piza_adapter_b1")[0]["params"]
    plain = {name: shape for name, shape in params.items() if not re.search("^(zoom_|bbox_enc)|emb_proj", name)}
    config = mmdet.infer_config(plain, bert_heads=4)
    assert (config.adapter, config.adapter_dim, config.zoom_projection, config.history) == (
        "adapter_plus", 32, "none", False
    )  # fmt: skip
    shared = plain | {name: shape for name, shape in params.items() if name.startswith("zoom_embedding.")}
    assert mmdet.infer_config(shared, bert_heads=4).zoom_projection == "shared"
    with pytest.raises(PizaError, match=r"adapters have the widths \[8, 32\]"):
        mmdet.infer_config(plain | {"encoder.layers.0.adapter1.linear_down.weight": (8, 256)}, bert_heads=4)
