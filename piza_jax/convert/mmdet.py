"""Names of the mmdetection MM-GroundingDINO release and of the PIZA-Adapter+ release on top of it."""

import re
from collections.abc import Mapping

import numpy as np

from piza_jax.convert.check import Source, fill
from piza_jax.errors import PizaError
from piza_jax.piza.detector import PizaDetector

_Rules = list[tuple[str, str]]


def _deformable(ours: str, theirs: str) -> _Rules:
    return [
        (ours + r"/(?P<part>sampling_offsets|attention_weights)", theirs + r".\g<part>"),
        (ours + r"/value", theirs + ".value_proj"),
        (ours + r"/out", theirs + ".output_proj"),
    ]


def _attention(ours: str, theirs: str) -> _Rules:
    """torch keeps the three input projections in one array; the part after # says which third."""
    return [
        (ours + r"/(?P<part>query|key|value)", theirs + r".in_proj#\g<part>"),
        (ours + r"/out", theirs + ".out_proj"),
    ]


def _ffn(ours: str, theirs: str) -> _Rules:
    return [(ours + r"/layers/0", theirs + ".layers.0.0"), (ours + r"/layers/1", theirs + ".layers.1")]


def _adapters(ours: str, theirs: str) -> _Rules:
    return [
        (ours + r"/(?P<part>adapter[12])/condition", theirs + r".\g<part>.emb_proj"),
        (ours + r"/(?P<part>adapter[12])/(?P<way>down|up)", theirs + r".\g<part>.linear_\g<way>"),
        (ours + r"/(?P<part>adapter[12])", theirs + r".\g<part>"),
    ]


def _norms(ours: str, theirs: str, count: int) -> _Rules:
    return [(f"{ours}/norm{index + 1}", f"{theirs}.norms.{index}") for index in range(count)]


def _layer(ours: str, theirs: str, norms: int) -> _Rules:
    return _adapters(ours, theirs) + _ffn(ours + "/ffn", theirs + ".ffn") + _norms(ours, theirs, norms)


_BLOCK, _BLOCK_THEIRS = r"detector/backbone/stages/(\d+)/blocks/(\d+)", r"backbone.stages.\1.blocks.\2"
_TEXT, _TEXT_THEIRS = r"detector/bert", "language_model.language_backbone.body.model"
_TOKEN_LAYER, _TOKEN_LAYER_THEIRS = _TEXT + r"/layers/(\d+)", _TEXT_THEIRS + r".encoder.layer.\1"
_IMAGE_LAYER, _IMAGE_LAYER_THEIRS = r"detector/enhancer/layers/(\d+)/image", r"encoder.layers.\1"
_TEXT_LAYER, _TEXT_LAYER_THEIRS = r"detector/enhancer/layers/(\d+)/text", r"encoder.text_layers.\1"
_FUSION, _FUSION_THEIRS = r"detector/enhancer/layers/(\d+)/fusion", r"encoder.fusion_layers.\1"
_DECODER, _DECODER_THEIRS = r"detector/decoder/layers/(\d+)", r"decoder.layers.\1"
_HISTORY = "bbox_encoder.box_encoder"

# Ours -> theirs, without the last part; LAST is the number of decoder layers.
_MODULES: _Rules = [
    (r"detector/backbone/patch_embed", "backbone.patch_embed.projection"),
    (r"detector/backbone/patch_norm", "backbone.patch_embed.norm"),
    (r"detector/backbone/stages/(\d+)/downsample/(\w+)", r"backbone.stages.\1.downsample.\2"),
    (r"detector/backbone/out_norms/(\d+)", r"backbone.norm<\1>"),
    (_BLOCK + r"/(norm[12])", _BLOCK_THEIRS + r".\3"),
    (_BLOCK + r"/attention/qkv", _BLOCK_THEIRS + r".attn.w_msa.qkv"),
    (_BLOCK + r"/attention/out", _BLOCK_THEIRS + r".attn.w_msa.proj"),
    (_BLOCK + r"/attention", _BLOCK_THEIRS + r".attn.w_msa"),
    (_BLOCK + r"/up", _BLOCK_THEIRS + r".ffn.layers.0.0"),
    (_BLOCK + r"/down", _BLOCK_THEIRS + r".ffn.layers.1"),
    (r"detector/neck/lateral/(\d+)/conv", r"neck.convs.\1.conv"),
    (r"detector/neck/lateral/(\d+)/group_norm", r"neck.convs.\1.gn"),
    (r"detector/neck/extra/(\d+)/conv", r"neck.extra_convs.\1.conv"),
    (r"detector/neck/extra/(\d+)/group_norm", r"neck.extra_convs.\1.gn"),
    (_TEXT + r"/(word|position)_embeddings", _TEXT_THEIRS + r".embeddings.\1_embeddings"),
    (_TEXT + r"/type_embeddings", _TEXT_THEIRS + r".embeddings.token_type_embeddings"),
    (_TEXT + r"/embedding_norm", _TEXT_THEIRS + r".embeddings.LayerNorm"),
    (_TOKEN_LAYER + r"/attention/(query|key|value)", _TOKEN_LAYER_THEIRS + r".attention.self.\2"),
    (_TOKEN_LAYER + r"/attention/out", _TOKEN_LAYER_THEIRS + r".attention.output.dense"),
    (_TOKEN_LAYER + r"/attention_norm", _TOKEN_LAYER_THEIRS + r".attention.output.LayerNorm"),
    (_TOKEN_LAYER + r"/up", _TOKEN_LAYER_THEIRS + r".intermediate.dense"),
    (_TOKEN_LAYER + r"/down", _TOKEN_LAYER_THEIRS + r".output.dense"),
    (_TOKEN_LAYER + r"/output_norm", _TOKEN_LAYER_THEIRS + r".output.LayerNorm"),
    (r"detector/text_projection", "text_feat_map"),
    (_FUSION + r"/norm_image", _FUSION_THEIRS + ".layer_norm_v"),
    (_FUSION + r"/norm_text", _FUSION_THEIRS + ".layer_norm_l"),
    (_FUSION + r"/attention/image_query", _FUSION_THEIRS + ".attn.v_proj"),
    (_FUSION + r"/attention/text_query", _FUSION_THEIRS + ".attn.l_proj"),
    (_FUSION + r"/attention/image_value", _FUSION_THEIRS + ".attn.values_v_proj"),
    (_FUSION + r"/attention/text_value", _FUSION_THEIRS + ".attn.values_l_proj"),
    (_FUSION + r"/attention/image_out", _FUSION_THEIRS + ".attn.out_v_proj"),
    (_FUSION + r"/attention/text_out", _FUSION_THEIRS + ".attn.out_l_proj"),
    (_FUSION, _FUSION_THEIRS),
    *_attention(_TEXT_LAYER + "/attention", _TEXT_LAYER_THEIRS + ".self_attn.attn"),
    *_deformable(_IMAGE_LAYER + "/attention", _IMAGE_LAYER_THEIRS + ".self_attn"),
    *_layer(_TEXT_LAYER, _TEXT_LAYER_THEIRS, 2),
    *_layer(_IMAGE_LAYER, _IMAGE_LAYER_THEIRS, 2),
    *_attention(_DECODER + "/self_attention", _DECODER_THEIRS + ".self_attn.attn"),
    *_attention(_DECODER + "/text_attention", _DECODER_THEIRS + ".cross_attn_text.attn"),
    *_deformable(_DECODER + "/image_attention", _DECODER_THEIRS + ".cross_attn"),
    *_layer(_DECODER, _DECODER_THEIRS, 4),
    (r"detector/decoder/position_head/layers/(\d)", r"decoder.ref_point_head.layers.\1"),
    (r"detector/decoder/norm", "decoder.norm"),
    (r"detector/decoder/box_heads/(\d+)/layers/(\d)", r"bbox_head.reg_branches.\1.<2*\2>"),
    (r"detector/decoder/class_heads/(\d+)", r"bbox_head.cls_branches.\1"),
    (r"detector/selection_box_head/layers/(\d)", r"bbox_head.reg_branches.LAST.<2*\1>"),
    (r"detector/selection_class_head", "bbox_head.cls_branches.LAST"),
    (r"detector/memory_projection", "memory_trans_fc"),
    (r"detector/memory_norm", "memory_trans_norm"),
    (r"detector/query_embedding", "query_embedding"),
    (r"detector/denoising/label_embedding", "dn_query_generator.label_embedding"),
    (r"detector", ""),
    (r"zoom_embedding/hidden", "zoom_embedding.temb.dense.0"),
    (r"zoom_embedding/out", "zoom_embedding.temb.dense.1"),
    (r"history/area_features/hidden", _HISTORY + ".lff1.mlp.0"),
    (r"history/area_features/out", _HISTORY + ".lff1.mlp.2"),
    (r"history/area_features", _HISTORY + ".lff1"),
    (r"history/place_features/hidden", _HISTORY + ".lff2.mlp.0"),
    (r"history/place_features/out", _HISTORY + ".lff2.mlp.2"),
    (r"history/place_features", _HISTORY + ".lff2"),
    *_attention("history/attention", _HISTORY + ".transformer.layers.0.self_attn"),
    (r"history/(norm[12])", _HISTORY + r".transformer.layers.0.\1"),
    (r"history/up", _HISTORY + ".transformer.layers.0.linear1"),
    (r"history/down", _HISTORY + ".transformer.layers.0.linear2"),
    (r"history/out", _HISTORY + ".fc3"),
    (r"history/stop_hidden", "bbox_encoder.binary_classifier.0"),
    (r"history/stop_out", "bbox_encoder.binary_classifier.2"),
    (r"history/progress_hidden", "bbox_encoder.continuous_regressor.0"),
    (r"history/progress_out", "bbox_encoder.continuous_regressor.2"),
]

# Ours -> theirs, the last part where it is not "weight" or the same word.
_LEAVES = {
    "kernel": "weight",
    "embedding": "weight",
    "level_embedding": "level_embed",
    "scale_image": "gamma_v",
    "scale_text": "gamma_l",
    "relative_bias": "relative_position_bias_table",
    "frequencies": "Wr",
}
_THIRDS = {"query": 0, "key": 1, "value": 2}


def _unfold_order(array: np.ndarray) -> np.ndarray:
    """Last axis from (channel, 2x2 place), the order of mmdetection's unfold, to (2x2 place, channel)."""
    return array.reshape(*array.shape[:-1], -1, 4).swapaxes(-1, -2).reshape(array.shape)


def source_of(ours: str, decoder_layers: int, first_output: int = 1) -> Source:
    """Source of our parameter ``ours``, such as "detector/neck/lateral/0/conv/kernel".

    Raises:
        PizaError: if the name has no counterpart in the release.
    """
    module, _, leaf = ours.rpartition("/")
    for pattern, template in _MODULES:
        if found := re.fullmatch(pattern, module):
            theirs = found.expand(template).replace("LAST", str(decoder_layers))
            break
    else:
        raise PizaError(f"parameter {ours} has no counterpart in the mmdetection release")
    theirs = re.sub(r"<2\*(\d)>", lambda m: str(2 * int(m[1])), theirs)
    theirs = re.sub(r"<(\d+)>", lambda m: str(int(m[1]) + first_output), theirs)
    theirs, _, third = theirs.partition("#")
    name = _LEAVES.get(leaf, leaf)
    if leaf == "scale":
        name = "scaling" if re.search(r"\.adapter[12]$", theirs) else "weight"

    def turn(array: np.ndarray) -> np.ndarray:
        if third:
            array = np.split(array, 3)[_THIRDS[third]]
        if "/downsample/" in ours:
            array = _unfold_order(array)
        if leaf in ("kernel", "frequencies"):
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        return array

    joint = "_" if third else "."
    return Source(f"{theirs}{joint}{name}" if theirs else name, turn)


def ignored(name: str) -> str | None:
    """Why a tensor of the release has no place in the model, or None."""
    if name.startswith(_HISTORY + ".transformer_layer."):
        return "a duplicate layer that the released forward never uses"
    if name.endswith(("embeddings.position_ids", "relative_position_index")):
        return "a constant buffer"
    return None


def load_tensors(model: PizaDetector, tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Fill ``model`` from tensors under the release's names, in place.

    Returns:
        Names of the tensors that were ignored, with the reasons.

    Raises:
        PizaError: if anything is left over on either side or a shape differs.
    """
    config = model.config.detector
    return fill(model, tensors, lambda ours: source_of(ours, config.decoder_layers, config.swin.first_output), ignored)
