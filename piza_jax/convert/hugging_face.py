"""transformers' GroundingDINO and MM-GroundingDINO: names of the tensors in their files, and config.json both ways."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from piza_jax.convert.check import written
from piza_jax.convert.names import NameMap, Rules, bert, deformable
from piza_jax.errors import PizaError
from piza_jax.models.config import BertConfig, DetectorConfig, SwinConfig
from piza_jax.piza.detector import PizaDetector

CLASSES = {
    "grounding-dino": "GroundingDinoForObjectDetection",
    "mm-grounding-dino": "MMGroundingDinoForObjectDetection",
}
SPECIAL_TOKENS = (101, 102, 1012, 1029)  # written into the code there

_SWIN = "model.backbone.conv_encoder.model"
_BLOCK = r"detector/backbone/stages/(\d+)/blocks/(\d+)"
_BLOCK_THEIRS = _SWIN + r".encoder.layers.\1.blocks.\2"
_FUSION, _FUSION_THEIRS = r"detector/enhancer/layers/(\d+)/fusion", r"model.encoder.layers.\1.fusion_layer"
_TEXT, _TEXT_THEIRS = r"detector/enhancer/layers/(\d+)/text", r"model.encoder.layers.\1.text_enhancer_layer"
_IMAGE, _IMAGE_THEIRS = r"detector/enhancer/layers/(\d+)/image", r"model.encoder.layers.\1.deformable_layer"
_DECODER, _DECODER_THEIRS = r"detector/decoder/layers/(\d+)", r"model.decoder.layers.\1"


def _attention(ours: str, theirs: str) -> Rules:
    return [(ours + r"/(?P<part>query|key|value)", theirs + r".\g<part>"), (ours + r"/out", theirs + ".out_proj")]


def _ffn(ours: str, theirs: str) -> Rules:
    return [(ours + r"/ffn/layers/0", theirs + ".fc1"), (ours + r"/ffn/layers/1", theirs + ".fc2")]


_RULES: Rules = [
    (r"detector/backbone/patch_embed", _SWIN + ".embeddings.patch_embeddings.projection"),
    (r"detector/backbone/patch_norm", _SWIN + ".embeddings.norm"),
    (r"detector/backbone/stages/(\d+)/downsample/(\w+)", _SWIN + r".encoder.layers.\1.downsample.\2"),
    (r"detector/backbone/out_norms/(\d+)", _SWIN + r".hidden_states_norms.stage<\1+next>"),
    (_BLOCK + r"/norm1", _BLOCK_THEIRS + ".layernorm_before"),
    (_BLOCK + r"/norm2", _BLOCK_THEIRS + ".layernorm_after"),
    (_BLOCK + r"/attention/qkv", _BLOCK_THEIRS + ".attention.self.{query,key,value}"),
    (_BLOCK + r"/attention/out", _BLOCK_THEIRS + ".attention.output.dense"),
    (_BLOCK + r"/attention/relative_bias", "=" + _BLOCK_THEIRS + ".attention.self.relative_position_bias_table"),
    (_BLOCK + r"/up", _BLOCK_THEIRS + ".intermediate.dense"),
    (_BLOCK + r"/down", _BLOCK_THEIRS + ".output.dense"),
    (r"detector/neck/lateral/(\d+)/conv", r"model.input_proj_vision.\1.0"),
    (r"detector/neck/lateral/(\d+)/group_norm", r"model.input_proj_vision.\1.1"),
    (r"detector/neck/extra/(\d+)/conv", r"model.input_proj_vision.<\1+laterals>.0"),
    (r"detector/neck/extra/(\d+)/group_norm", r"model.input_proj_vision.<\1+laterals>.1"),
    *bert("model.text_backbone"),
    (r"detector/text_projection", "model.text_projection"),
    (_FUSION + r"/norm_image", _FUSION_THEIRS + ".layer_norm_vision"),
    (_FUSION + r"/norm_text", _FUSION_THEIRS + ".layer_norm_text"),
    (_FUSION + r"/attention/image_query", _FUSION_THEIRS + ".attn.vision_proj"),
    (_FUSION + r"/attention/text_query", _FUSION_THEIRS + ".attn.text_proj"),
    (_FUSION + r"/attention/image_value", _FUSION_THEIRS + ".attn.values_vision_proj"),
    (_FUSION + r"/attention/text_value", _FUSION_THEIRS + ".attn.values_text_proj"),
    (_FUSION + r"/attention/image_out", _FUSION_THEIRS + ".attn.out_vision_proj"),
    (_FUSION + r"/attention/text_out", _FUSION_THEIRS + ".attn.out_text_proj"),
    (_FUSION + r"/scale_image", "=" + _FUSION_THEIRS + ".vision_param"),
    (_FUSION + r"/scale_text", "=" + _FUSION_THEIRS + ".text_param"),
    *_attention(_TEXT + "/attention", _TEXT_THEIRS + ".self_attn"),
    *_ffn(_TEXT, _TEXT_THEIRS),
    (_TEXT + r"/norm1", _TEXT_THEIRS + ".layer_norm_before"),
    (_TEXT + r"/norm2", _TEXT_THEIRS + ".layer_norm_after"),
    *deformable(_IMAGE + "/attention", _IMAGE_THEIRS + ".self_attn"),
    *_ffn(_IMAGE, _IMAGE_THEIRS),
    (_IMAGE + r"/norm1", _IMAGE_THEIRS + ".self_attn_layer_norm"),
    (_IMAGE + r"/norm2", _IMAGE_THEIRS + ".final_layer_norm"),
    *_attention(_DECODER + "/self_attention", _DECODER_THEIRS + ".self_attn"),
    *_attention(_DECODER + "/text_attention", _DECODER_THEIRS + ".encoder_attn_text"),
    *deformable(_DECODER + "/image_attention", _DECODER_THEIRS + ".encoder_attn"),
    *_ffn(_DECODER, _DECODER_THEIRS),
    (_DECODER + r"/norm1", _DECODER_THEIRS + ".self_attn_layer_norm"),
    (_DECODER + r"/norm2", _DECODER_THEIRS + ".encoder_attn_text_layer_norm"),
    (_DECODER + r"/norm3", _DECODER_THEIRS + ".encoder_attn_layer_norm"),
    (_DECODER + r"/norm4", _DECODER_THEIRS + ".final_layer_norm"),
    (r"detector/decoder/position_head/layers/(\d)", r"model.decoder.reference_points_head.layers.\1"),
    (r"detector/decoder/norm", "model.decoder.layer_norm"),
    (r"detector/decoder/box_heads/(\d+)/layers/(\d)", r"bbox_embed.\1.layers.\2"),
    (r"detector/decoder/class_heads/(\d+)", r"class_embed.\1"),
    (r"detector/selection_box_head/layers/(\d)", r"model.encoder_output_bbox_embed.layers.\1"),
    (r"detector/selection_class_head", "model.encoder_output_class_embed"),
    (r"detector/memory_projection", "model.enc_output"),
    (r"detector/memory_norm", "model.enc_output_norm"),
    (r"detector/query_embedding", "model.query_position_embeddings"),
    (r"detector/level_embedding", "=model.level_embed"),
]

_UNUSED_NORM = r"^model\.backbone\.conv_encoder\.model\.(swin\.)?layernorm\."


def names(shared_box_head: bool, shared_class_head: bool) -> NameMap:
    """Names of either class; heads that all decoder layers share may be stored once or once for each layer."""
    aliases = [(r"^model\.decoder\.((bbox|class)_embed\..*)", r"\1")]
    for shared, head in ((shared_box_head, "bbox"), (shared_class_head, "class")):
        if shared:
            aliases.append((rf"^(model\.decoder\.)?{head}_embed\.\d+\.(.*)", rf"{head}_embed.0.\2"))
    return NameMap(
        "transformers",
        _RULES,
        "columns",
        ignored=[
            (_UNUSED_NORM, "the backbone's final norm, which the detector never uses"),
            (r"(embeddings\.position_ids|relative_position_index)$", "a constant buffer"),
            (r"^model\.text_backbone\.pooler\.", "BERT's pooler, which the detector never uses"),
        ],
        aliases=aliases[::-1],
    )


_SWIN_KEYS = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7, "mlp_ratio": 4.0}
_BERT_KEYS = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}
# Settings that change the mathematics, with the one value that our detector has.
_FIXED: dict[str, Any] = {
    "activation_function": "relu",
    "position_embedding_type": "sine",
    "two_stage": True,
    "embedding_init_target": True,
    "query_dim": 4,
    "two_stage_bbox_embed_share": False,
    "layer_norm_eps": 1e-5,
}
_FIXED_SWIN = {
    "model_type": "swin",
    "patch_size": 4,
    "num_channels": 3,
    "qkv_bias": True,
    "use_absolute_embeddings": False,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}
_FIXED_BERT = {"model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2}


def read_config(values: Mapping[str, Any], where: str) -> DetectorConfig:
    """The detector that a config.json describes; absent keys have transformers' defaults.

    Raises:
        PizaError: another architecture, or a setting that our detector does not have.
    """
    kind = values.get("model_type")
    if kind not in CLASSES:
        named = ", ".join(values.get("architectures") or []) or f"model_type {kind!r}"
        raise PizaError(f"{where} describes {named}; convertible are {', '.join(CLASSES.values())}")
    swin, text = values.get("backbone_config") or {}, values.get("text_config") or {}
    groups = (("", values, _FIXED), ("backbone_config.", swin, _FIXED_SWIN), ("text_config.", text, _FIXED_BERT))
    other = [
        f"{prefix}{key} is {given[key]!r}, not {wanted!r}"
        for prefix, given, fixed in groups
        for key, wanted in fixed.items()
        if given.get(key, wanted) != wanted
    ]
    if other:
        raise PizaError(f"{where} describes another detector than ours: {'; '.join(other)}")
    outputs = list(swin.get("out_indices") or [2, 3, 4])
    s, b = ({key: given.get(key, default) for key, default in keys.items()} for given, keys in
            ((swin, _SWIN_KEYS), (text, _BERT_KEYS)))  # fmt: skip
    if outputs != list(range(outputs[0], len(s["depths"]) + 1)):
        raise PizaError(f"{where}: backbone_config.out_indices is {outputs}; it must run to the last stage")
    dim, heads = values.get("d_model", 256), values.get("encoder_attention_heads", 8)
    hidden = values.get("encoder_ffn_dim", 2048)
    points = values.get("encoder_n_points", 4)
    for name, encoder, decoder in (
        ("attention_heads", heads, values.get("decoder_attention_heads", 8)),
        ("ffn_dim", hidden, values.get("decoder_ffn_dim", 2048)),
        ("n_points", points, values.get("decoder_n_points", 4)),
    ):
        if encoder != decoder:
            raise PizaError(f"{where}: encoder_{name} is {encoder} and decoder_{name} {decoder}; ours are equal")
    mm = kind == "mm-grounding-dino"
    return DetectorConfig(
        swin=SwinConfig(
            dim=s["embed_dim"],
            depths=tuple(s["depths"]),
            heads=tuple(s["num_heads"]),
            window=s["window_size"],
            mlp_ratio=int(s["mlp_ratio"]),
            first_output=outputs[0] - 1,
        ),
        bert=BertConfig(
            vocab_size=b["vocab_size"],
            dim=b["hidden_size"],
            layers=b["num_hidden_layers"],
            heads=b["num_attention_heads"],
            hidden=b["intermediate_size"],
            max_positions=b["max_position_embeddings"],
        ),
        dim=dim,
        heads=heads,
        levels=values.get("num_feature_levels", 4),
        points=points,
        encoder_layers=values.get("encoder_layers", 6),
        decoder_layers=values.get("decoder_layers", 6),
        hidden=hidden,
        text_heads=heads // 2,
        text_hidden=hidden // 2,
        fusion_heads=heads // 2,
        fusion_dim=hidden // 2,
        queries=values.get("num_queries", 900),
        class_bias=mm,
        class_scale=mm,
        shared_box_head=values.get("decoder_bbox_embed_share", True),
        shared_class_head=values.get("decoder_cls_embed_share", True),
        position_temperature=float(values.get("positional_embedding_temperature", 20)),
        refine_eps=1e-5,
        denoising_queries=0,
        delimiter_ids=SPECIAL_TOKENS,
    )


def config_json(config: DetectorConfig, max_tokens: int) -> dict[str, Any]:
    """config.json that describes our detector to transformers.

    Raises:
        PizaError: sizes or a variant that transformers' classes cannot have.
    """
    if config.class_bias != config.class_scale:
        raise PizaError(
            "transformers has no detector with only one of class_bias and class_scale; nothing was exported"
        )
    half = {"text_heads": config.heads, "fusion_heads": config.heads, "text_hidden": config.hidden}
    for name, whole in {**half, "fusion_dim": config.hidden}.items():
        if getattr(config, name) != whole // 2:
            raise PizaError(
                f"model.detector.{name} is {getattr(config, name)}; transformers takes half of {whole}: "
                "this detector cannot be exported to it"
            )
    if tuple(config.delimiter_ids) != SPECIAL_TOKENS:
        raise PizaError(
            f"the tokenizer's delimiters have the ids {tuple(config.delimiter_ids)}; transformers' code has "
            f"{SPECIAL_TOKENS} (bert-base-uncased) written into it: this detector cannot be exported to it"
        )
    kind = "mm-grounding-dino" if config.class_bias else "grounding-dino"
    first, stages = config.swin.first_output, len(config.swin.depths)
    outputs = list(range(first + 1, stages + 1))
    swin = [config.swin.dim, list(config.swin.depths), list(config.swin.heads), config.swin.window]
    text = config.bert
    bert_values = [text.vocab_size, text.dim, text.layers, text.heads, text.hidden, text.max_positions]
    values = {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        **{key: value for key, value in _FIXED.items() if key != "two_stage_bbox_embed_share" or not config.class_bias},
        "backbone_config": {
            **_FIXED_SWIN,
            **dict(zip(_SWIN_KEYS, [*swin, float(config.swin.mlp_ratio)], strict=True)),
            "out_indices": outputs,
            "out_features": [f"stage{index}" for index in outputs],
        },
        "text_config": {**_FIXED_BERT, **dict(zip(_BERT_KEYS, bert_values, strict=True))},
        "d_model": config.dim,
        "encoder_attention_heads": config.heads,
        "decoder_attention_heads": config.heads,
        "encoder_ffn_dim": config.hidden,
        "decoder_ffn_dim": config.hidden,
        "encoder_n_points": config.points,
        "decoder_n_points": config.points,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "num_feature_levels": config.levels,
        "num_queries": config.queries,
        "max_text_len": max_tokens,
        "decoder_bbox_embed_share": config.shared_box_head,
        "positional_embedding_temperature": int(config.position_temperature),
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    return {**values, "decoder_cls_embed_share": config.shared_class_head} if config.class_bias else values


def tensors_of(model: PizaDetector) -> dict[str, np.ndarray]:
    """The detector's weights under transformers' names.

    Raises:
        PizaError: the model has adapters or other parts that transformers' detector has not.
    """
    config = model.config.detector
    tensors = written(model, names(config.shared_box_head, config.shared_class_head), skip=("detector/denoising/",))
    for name, array in tensors.items():
        if "class_embed." in name:
            tensors[name] = array.reshape(())
    return tensors
