"""Sizes and variants of the detector."""

import dataclasses
from dataclasses import dataclass, field

from piza_jax.errors import PizaError

REMAT = ("none", "layers", "dots")


@dataclass(frozen=True)
class SwinConfig:
    """Swin backbone; the defaults are Swin-T. ``first_output`` is the first stage whose features are used."""

    dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    mlp_ratio: int = 4
    first_output: int = 1


@dataclass(frozen=True)
class BertConfig:
    """Text backbone; the defaults are BERT-base uncased."""

    vocab_size: int = 30522
    dim: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    max_positions: int = 512


@dataclass(frozen=True)
class DetectorConfig:
    """GroundingDINO; the defaults are MM-GroundingDINO Swin-T.

    GroundingDINO's own variant has ``class_bias=False, class_scale=False, shared_box_head=True``.

    Attributes:
        dim: width of queries, memory and text in the transformer.
        levels: feature levels; the first ones come from the backbone, the others from strided convolutions.
        points: sampling points for each head and level.
        fusion_dim: inner width of the bi-directional fusion.
        class_bias: learnt bias on the contrastive logits.
        class_scale: divide the contrastive logits by the square root of ``dim``.
        shared_box_head: one box head for all decoder layers (query selection keeps its own).
        shared_class_head: one class bias for all decoder layers (query selection keeps its own).
        position_temperature: longest wavelength of the image positions.
        refine_eps: clamp of the inverse sigmoid in the decoder's box refinement.
        output_eps: the same of each layer's output boxes.
        mask_fusion_text: hide padding tokens from the image in the fusion. The released code does not (its mask adds a
            constant), so there a caption's result depends on the longest caption of its batch.
        denoising_queries: number of denoising pairs shared among the targets of a sample; 0 switches denoising off.
        label_classes: rows of the denoising label embedding.
        delimiter_ids: vocabulary ids of [CLS], [SEP], full stop and question mark.
        dtype: compute type, "float32" or "bfloat16"; parameters, locations and boxes stay float32.
        remat: what the backward pass recomputes: "none"; "layers", all inside a layer, of which only the input is kept;
            "dots", all but the results of matrix products with weights. True and False stand for "layers" and "none".
        scan_layers: compile a layer of BERT and of the enhancer once, as the body of a loop over the stacked weights.
    """

    swin: SwinConfig = field(default_factory=SwinConfig)
    bert: BertConfig = field(default_factory=BertConfig)
    dim: int = 256
    heads: int = 8
    levels: int = 4
    points: int = 4
    encoder_layers: int = 6
    decoder_layers: int = 6
    hidden: int = 2048
    text_heads: int = 4
    text_hidden: int = 1024
    fusion_heads: int = 4
    fusion_dim: int = 1024
    queries: int = 900
    class_bias: bool = True
    class_scale: bool = True
    shared_box_head: bool = False
    shared_class_head: bool = False
    position_temperature: float = 20.0
    refine_eps: float = 1e-3
    output_eps: float = 1e-5
    mask_fusion_text: bool = True
    denoising_queries: int = 100
    label_noise: float = 0.5
    box_noise: float = 1.0
    label_classes: int = 256
    delimiter_ids: tuple[int, ...] = (101, 102, 1012, 1029)
    dtype: str = "float32"
    remat: str = "none"
    scan_layers: bool = False

    def __post_init__(self):
        """Take the switch that remat once was for the word that it is now."""
        words = {True: "layers", False: "none", "true": "layers", "false": "none"}
        object.__setattr__(self, "remat", words.get(self.remat, self.remat))
        if self.remat not in REMAT:
            raise PizaError(f"model.detector.remat is {self.remat!r}; choose one of {', '.join(REMAT)}")

    @classmethod
    def preset(cls, name: str, **overrides) -> "DetectorConfig":
        """A named size: "swin_t", "swin_b", "swin_l", "mini" for drawn scenes, or "tiny" for tests.

        Raises:
            KeyError: if there is no such size.
        """
        return dataclasses.replace(cls(**_PRESETS[name]), **overrides)


_PRESETS: dict[str, dict] = {
    "swin_t": {},
    "swin_b": {"swin": SwinConfig(dim=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), window=12)},
    "swin_l": {
        "swin": SwinConfig(dim=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48), window=12, first_output=0),
        "levels": 5,
    },
    "tiny": {
        "swin": SwinConfig(dim=32, depths=(1, 1, 2, 1), heads=(1, 2, 4, 8), window=7),
        "bert": BertConfig(vocab_size=2048, dim=64, layers=2, heads=4, hidden=128, max_positions=256),
        "dim": 128,
        "heads": 4,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "hidden": 256,
        "text_hidden": 256,
        "fusion_dim": 128,
        "queries": 50,
        "denoising_queries": 10,
        "label_classes": 16,
    },
    "mini": {
        "swin": SwinConfig(dim=32, depths=(1, 1, 2, 2), heads=(1, 2, 4, 8), window=6),
        "bert": BertConfig(vocab_size=2048, dim=128, layers=2, heads=4, hidden=512, max_positions=256),
        "dim": 128,
        "levels": 3,
        "points": 2,
        "encoder_layers": 3,
        "decoder_layers": 3,
        "hidden": 256,
        "text_hidden": 256,
        "fusion_dim": 128,
        "queries": 40,
        "denoising_queries": 10,
        "label_classes": 16,
    },
}
PRESETS = tuple(_PRESETS)
