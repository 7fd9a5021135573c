"""Names of the mmdetection MM-GroundingDINO release and of the PIZA-Adapter+ release on top of it."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from piza_jax.convert.check import fill
from piza_jax.convert.infer import infer_detector
from piza_jax.convert.lazy import LazyTensors, shapes_of
from piza_jax.convert.names import NameMap, Rules, attention, bert, deformable, fusion
from piza_jax.errors import PizaError
from piza_jax.piza.detector import PizaConfig, PizaDetector


def _ffn(ours: str, theirs: str) -> Rules:
    return [(ours + r"/layers/0", theirs + ".layers.0.0"), (ours + r"/layers/1", theirs + ".layers.1")]


def _adapters(ours: str, theirs: str) -> Rules:
    return [
        (ours + r"/(?P<part>adapter[12])/condition", theirs + r".\g<part>.emb_proj"),
        (ours + r"/(?P<part>adapter[12])/(?P<way>down|up)", theirs + r".\g<part>.linear_\g<way>"),
        (ours + r"/(?P<part>adapter[12])/scale", "=" + theirs + r".\g<part>.scaling"),
    ]


def _norms(ours: str, theirs: str, count: int) -> Rules:
    return [(f"{ours}/norm{index + 1}", f"{theirs}.norms.{index}") for index in range(count)]


def _layer(ours: str, theirs: str, norms: int) -> Rules:
    return _adapters(ours, theirs) + _ffn(ours + "/ffn", theirs + ".ffn") + _norms(ours, theirs, norms)


_BLOCK, _BLOCK_THEIRS = r"detector/backbone/stages/(\d+)/blocks/(\d+)", r"backbone.stages.\1.blocks.\2"
_IMAGE_LAYER, _IMAGE_LAYER_THEIRS = r"detector/enhancer/layers/(\d+)/image", r"encoder.layers.\1"
_TEXT_LAYER, _TEXT_LAYER_THEIRS = r"detector/enhancer/layers/(\d+)/text", r"encoder.text_layers.\1"
_FUSION, _FUSION_THEIRS = r"detector/enhancer/layers/(\d+)/fusion", r"encoder.fusion_layers.\1"
_DECODER, _DECODER_THEIRS = r"detector/decoder/layers/(\d+)", r"decoder.layers.\1"
_HISTORY = "bbox_encoder.box_encoder"

_DETECTOR: Rules = [
    (r"detector/backbone/patch_embed", "backbone.patch_embed.projection"),
    (r"detector/backbone/patch_norm", "backbone.patch_embed.norm"),
    (r"detector/backbone/stages/(\d+)/downsample/(\w+)", r"backbone.stages.\1.downsample.\2"),
    (r"detector/backbone/out_norms/(\d+)", r"backbone.norm<\1+first>"),
    (_BLOCK + r"/(norm[12])", _BLOCK_THEIRS + r".\3"),
    (_BLOCK + r"/attention/qkv", _BLOCK_THEIRS + r".attn.w_msa.qkv"),
    (_BLOCK + r"/attention/out", _BLOCK_THEIRS + r".attn.w_msa.proj"),
    (_BLOCK + r"/attention/relative_bias", "=" + _BLOCK_THEIRS + r".attn.w_msa.relative_position_bias_table"),
    (_BLOCK + r"/up", _BLOCK_THEIRS + r".ffn.layers.0.0"),
    (_BLOCK + r"/down", _BLOCK_THEIRS + r".ffn.layers.1"),
    (r"detector/neck/lateral/(\d+)/conv", r"neck.convs.\1.conv"),
    (r"detector/neck/lateral/(\d+)/group_norm", r"neck.convs.\1.gn"),
    (r"detector/neck/extra/(\d+)/conv", r"neck.extra_convs.\1.conv"),
    (r"detector/neck/extra/(\d+)/group_norm", r"neck.extra_convs.\1.gn"),
    *bert("language_model.language_backbone.body.model"),
    (r"detector/text_projection", "text_feat_map"),
    *fusion(_FUSION, _FUSION_THEIRS),
    *attention(_TEXT_LAYER + "/attention", _TEXT_LAYER_THEIRS + ".self_attn.attn"),
    *deformable(_IMAGE_LAYER + "/attention", _IMAGE_LAYER_THEIRS + ".self_attn"),
    *_layer(_TEXT_LAYER, _TEXT_LAYER_THEIRS, 2),
    *_layer(_IMAGE_LAYER, _IMAGE_LAYER_THEIRS, 2),
    *attention(_DECODER + "/self_attention", _DECODER_THEIRS + ".self_attn.attn"),
    *attention(_DECODER + "/text_attention", _DECODER_THEIRS + ".cross_attn_text.attn"),
    *deformable(_DECODER + "/image_attention", _DECODER_THEIRS + ".cross_attn"),
    *_layer(_DECODER, _DECODER_THEIRS, 4),
    (r"detector/decoder/position_head/layers/(\d)", r"decoder.ref_point_head.layers.\1"),
    (r"detector/decoder/norm", "decoder.norm"),
    (r"detector/decoder/box_heads/(\d+)/layers/(\d)", r"bbox_head.reg_branches.\1.<2*\2>"),
    (r"detector/decoder/class_heads/(\d+)", r"bbox_head.cls_branches.\1"),
    (r"detector/selection_box_head/layers/(\d)", r"bbox_head.reg_branches.<0+decoder_layers>.<2*\1>"),
    (r"detector/selection_class_head", "bbox_head.cls_branches.<0+decoder_layers>"),
    (r"detector/memory_projection", "memory_trans_fc"),
    (r"detector/memory_norm", "memory_trans_norm"),
    (r"detector/query_embedding", "query_embedding"),
    (r"detector/level_embedding", "=level_embed"),
    (r"detector/denoising/label_embedding", "dn_query_generator.label_embedding"),
]
_PIZA: Rules = [
    (r"zoom_embedding/hidden", "zoom_embedding.temb.dense.0"),
    (r"zoom_embedding/out", "zoom_embedding.temb.dense.1"),
    (r"history/area_features/hidden", _HISTORY + ".lff1.mlp.0"),
    (r"history/area_features/out", _HISTORY + ".lff1.mlp.2"),
    (r"history/area_features/frequencies", "=" + _HISTORY + ".lff1.Wr"),
    (r"history/place_features/hidden", _HISTORY + ".lff2.mlp.0"),
    (r"history/place_features/out", _HISTORY + ".lff2.mlp.2"),
    (r"history/place_features/frequencies", "=" + _HISTORY + ".lff2.Wr"),
    *attention("history/attention", _HISTORY + ".transformer.layers.0.self_attn"),
    (r"history/(norm[12])", _HISTORY + r".transformer.layers.0.\1"),
    (r"history/up", _HISTORY + ".transformer.layers.0.linear1"),
    (r"history/down", _HISTORY + ".transformer.layers.0.linear2"),
    (r"history/out", _HISTORY + ".fc3"),
    (r"history/stop_hidden", "bbox_encoder.binary_classifier.0"),
    (r"history/stop_out", "bbox_encoder.binary_classifier.2"),
    (r"history/progress_hidden", "bbox_encoder.continuous_regressor.0"),
    (r"history/progress_out", "bbox_encoder.continuous_regressor.2"),
]

MMDET = NameMap(
    "the mmdetection release",
    _DETECTOR + _PIZA,
    "unfold",
    ignored=[
        (r"^bbox_encoder\.box_encoder\.transformer_layer\.", "a duplicate layer that the released forward never uses"),
        (r"(embeddings\.position_ids|relative_position_index)$", "a constant buffer"),
        (r"^language_model\.language_backbone\.body\.model\.pooler\.", "BERT's pooler, which the detector never uses"),
    ],
)


def load_tensors(model: PizaDetector, tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Fill ``model`` from tensors under the release's names, in place.

    Returns:
        Names of the tensors that were ignored, with the reasons.

    Raises:
        PizaError: if anything is left over on either side or a shape differs.
    """
    return fill(model, tensors, MMDET)


_LABELS = "dn_query_generator.label_embedding.weight"
_PIZA_NAMES = r"^(zoom_embedding|bbox_encoder)\.|\.adapter[12]\."


def infer_config(
    shapes: Mapping[str, Sequence[int]], *, heads: int | None = None, bert_heads: int | None = None
) -> PizaConfig:
    """The detector of a file of the release, with PIZA's parts where the file has them.

    The logits are scaled where they have a bias: MM-GroundingDINO has both and GroundingDINO neither. Denoising has the
    recipe's number of queries where the file holds the label embedding.

    Args:
        shapes: name -> shape of every tensor; see ``lazy.shapes_of``.
        heads: of the image attention; by default one for each 32 channels.
        bert_heads: by default one for each 64 channels.

    Raises:
        PizaError: a tensor is absent, or sizes contradict each other or the number of heads.
    """
    biased = "bbox_head.cls_branches.0.bias" in shapes
    labels = {"label_classes": shapes[_LABELS][0]} if _LABELS in shapes else {"denoising_queries": 0}
    detector = infer_detector(
        shapes,
        MMDET,
        heads=heads,
        bert_heads=bert_heads,
        class_bias=biased,
        class_scale=biased,
        **labels,
    )
    history = any(name.startswith("bbox_encoder.") for name in shapes)
    widths = {shape[0] for name, shape in shapes.items() if name.endswith(".linear_down.weight")}
    if not widths:
        return PizaConfig(detector=detector, adapter="none", history=history)
    if len(widths) > 1:
        raise PizaError(f"the checkpoint's adapters have the widths {sorted(widths)}; ours have one width")
    projection = "none"
    if any(name.startswith("zoom_embedding.") for name in shapes):
        projection = "per_adapter" if any(".emb_proj." in name for name in shapes) else "shared"
    return PizaConfig(detector=detector, adapter_dim=widths.pop(), zoom_projection=projection, history=history)


def overlay(base: Mapping[str, np.ndarray], adapter: Mapping[str, np.ndarray]) -> LazyTensors:
    """A full checkpoint with the tensors of an adapter file in front, such as the released piza_adapter.pth.

    Args:
        base: tensors of MM-GroundingDINO, every one that the adapter file does not bring.
        adapter: PIZA's own tensors and those of the base that were trained with them.

    Raises:
        PizaError: the adapter file was trained on another base: it replaces a tensor that the base has not, or has in
            another shape.
    """
    under, over = shapes_of(base), shapes_of(adapter)
    strange = [name for name in over if name not in under and not re.search(_PIZA_NAMES, name)]
    bent = [
        f"{name} {tuple(shape)} for {tuple(under[name])}"
        for name, shape in over.items()
        if name in under and tuple(under[name]) != tuple(shape)
    ]
    problems = [
        f"{len(listed)} tensors {what} ({', '.join(listed[:4])}{' ...' if len(listed) > 4 else ''})"
        for listed, what in ((strange, "that the base does not have"), (bent, "of another shape"))
        if listed
    ]
    if problems:
        raise PizaError(
            f"the adapter file does not belong to this base: it brings {' and '.join(problems)}; "
            "give the checkpoint that the adapter was trained on"
        )
    return LazyTensors({**under, **over}, lambda name: (adapter if name in over else base)[name])
