"""Names of the original GroundingDINO release (IDEA-Research), and the detector that its files hold."""

from collections.abc import Mapping, Sequence

import numpy as np

from piza_jax.convert.check import fill
from piza_jax.convert.infer import infer_detector
from piza_jax.convert.names import NameMap, Rules, attention, bert, deformable, fusion
from piza_jax.models.config import DetectorConfig
from piza_jax.piza.detector import PizaDetector

_SWIN, _ENCODER, _DECODER = "backbone.0", "transformer.encoder", "transformer.decoder"
_BLOCK, _BLOCK_THEIRS = r"detector/backbone/stages/(\d+)/blocks/(\d+)", _SWIN + r".layers.\1.blocks.\2"
_IMAGE, _IMAGE_THEIRS = r"detector/enhancer/layers/(\d+)/image", _ENCODER + r".layers.\1"
_TEXT, _TEXT_THEIRS = r"detector/enhancer/layers/(\d+)/text", _ENCODER + r".text_layers.\1"
_FUSION, _FUSION_THEIRS = r"detector/enhancer/layers/(\d+)/fusion", _ENCODER + r".fusion_layers.\1"
_LAYER, _LAYER_THEIRS = r"detector/decoder/layers/(\d+)", _DECODER + r".layers.\1"


def _ffn(ours: str, theirs: str) -> Rules:
    return [(ours + r"/ffn/layers/(?P<index>\d)", theirs + r".linear<\g<index>+1>")]


_RULES: Rules = [
    (r"detector/backbone/patch_embed", _SWIN + ".patch_embed.proj"),
    (r"detector/backbone/patch_norm", _SWIN + ".patch_embed.norm"),
    (r"detector/backbone/stages/(\d+)/downsample/(\w+)", _SWIN + r".layers.\1.downsample.\2"),
    (r"detector/backbone/out_norms/(\d+)", _SWIN + r".norm<\1+first>"),
    (_BLOCK + r"/(norm[12])", _BLOCK_THEIRS + r".\3"),
    (_BLOCK + r"/attention/qkv", _BLOCK_THEIRS + ".attn.qkv"),
    (_BLOCK + r"/attention/out", _BLOCK_THEIRS + ".attn.proj"),
    (_BLOCK + r"/attention/relative_bias", "=" + _BLOCK_THEIRS + ".attn.relative_position_bias_table"),
    (_BLOCK + r"/up", _BLOCK_THEIRS + ".mlp.fc1"),
    (_BLOCK + r"/down", _BLOCK_THEIRS + ".mlp.fc2"),
    (r"detector/neck/lateral/(\d+)/conv", r"input_proj.\1.0"),
    (r"detector/neck/lateral/(\d+)/group_norm", r"input_proj.\1.1"),
    (r"detector/neck/extra/(\d+)/conv", r"input_proj.<\1+laterals>.0"),
    (r"detector/neck/extra/(\d+)/group_norm", r"input_proj.<\1+laterals>.1"),
    *bert("bert"),
    (r"detector/text_projection", "feat_map"),
    *fusion(_FUSION, _FUSION_THEIRS),
    *attention(_TEXT + "/attention", _TEXT_THEIRS + ".self_attn"),
    *_ffn(_TEXT, _TEXT_THEIRS),
    (_TEXT + r"/(norm[12])", _TEXT_THEIRS + r".\2"),
    *deformable(_IMAGE + "/attention", _IMAGE_THEIRS + ".self_attn"),
    *_ffn(_IMAGE, _IMAGE_THEIRS),
    (_IMAGE + r"/(norm[12])", _IMAGE_THEIRS + r".\2"),
    *attention(_LAYER + "/self_attention", _LAYER_THEIRS + ".self_attn"),
    *attention(_LAYER + "/text_attention", _LAYER_THEIRS + ".ca_text"),
    *deformable(_LAYER + "/image_attention", _LAYER_THEIRS + ".cross_attn"),
    *_ffn(_LAYER, _LAYER_THEIRS),
    # Norms are numbered there in the order of declaration, here in the order of use.
    (_LAYER + r"/norm1", _LAYER_THEIRS + ".norm2"),
    (_LAYER + r"/norm2", _LAYER_THEIRS + ".catext_norm"),
    (_LAYER + r"/norm3", _LAYER_THEIRS + ".norm1"),
    (_LAYER + r"/norm4", _LAYER_THEIRS + ".norm3"),
    (r"detector/decoder/position_head/layers/(\d)", _DECODER + r".ref_point_head.layers.\1"),
    (r"detector/decoder/norm", _DECODER + ".norm"),
    (r"detector/decoder/box_heads/(\d+)/layers/(\d)", r"bbox_embed.\1.layers.\2"),
    (r"detector/selection_box_head/layers/(\d)", r"transformer.enc_out_bbox_embed.layers.\1"),
    (r"detector/memory_projection", "transformer.enc_output"),
    (r"detector/memory_norm", "transformer.enc_output_norm"),
    (r"detector/query_embedding", "transformer.tgt_embed"),
    (r"detector/level_embedding", "=transformer.level_embed"),
    (r"detector/denoising/label_embedding", "label_enc"),
]

IDEA = NameMap(
    "the original GroundingDINO release",
    _RULES,
    "columns",
    ignored=[
        (r"(embeddings\.position_ids|relative_position_index)$", "a constant buffer"),
        (r"^bert\.pooler\.", "BERT's pooler, which the detector never uses"),
        (r"^label_enc\.", "the label embedding of denoising, which this detector does not have"),
    ],
    aliases=[(r"^(transformer\.decoder\.)?bbox_embed\.\d+\.", "bbox_embed.0.")],
)


def infer_config(
    shapes: Mapping[str, Sequence[int]], *, heads: int | None = None, bert_heads: int | None = None
) -> DetectorConfig:
    """The detector of a file of the original release.

    The release has no bias and no scale on its logits and one box head for all decoder layers. Denoising is off, since
    its code does without; where the file holds the label embedding, ``label_classes`` is its length, so that denoising
    can be switched on.

    Args:
        shapes: name -> shape of every tensor; see ``lazy.shapes_of``.
        heads: of the image attention; by default one for each 32 channels.
        bert_heads: by default one for each 64 channels.

    Raises:
        PizaError: a tensor is absent, or sizes contradict each other or the number of heads.
    """
    labels = {"label_classes": shapes["label_enc.weight"][0]} if "label_enc.weight" in shapes else {}
    return infer_detector(
        shapes,
        IDEA,
        heads=heads,
        bert_heads=bert_heads,
        class_bias=False,
        class_scale=False,
        shared_box_head=True,
        shared_class_head=True,
        refine_eps=1e-3,
        output_eps=1e-3,
        denoising_queries=0,
        **labels,
    )


def load_tensors(model: PizaDetector, tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Fill ``model`` from tensors under the release's names, in place.

    Returns:
        Names of the tensors that were ignored, with the reasons.

    Raises:
        PizaError: if anything is left over on either side or a shape differs.
    """
    return fill(model, tensors, IDEA)
