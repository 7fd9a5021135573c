"""transformers' detectors with random weights that hide nothing, written in their own file format."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.goldens import recipe

torch = pytest.importorskip("torch", reason="parity needs torch; pip install the extra parity")
transformers = pytest.importorskip("transformers", reason="parity needs transformers; pip install the extra parity")

CLASSES = {
    "grounding-dino": (transformers.GroundingDinoConfig, transformers.GroundingDinoForObjectDetection),
    "mm-grounding-dino": (transformers.MMGroundingDinoConfig, transformers.MMGroundingDinoForObjectDetection),
}
SPECIAL = (101, 102, 1012, 1029)

# Every size differs from every other one, so that no two can be taken for each other.
TINY = {"d_model": 64, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "encoder_layers": 2, "decoder_layers": 3}
TINY_SWIN = {"embed_dim": 24, "depths": [1, 2, 3, 1], "num_heads": [1, 2, 3, 4], "window_size": 5}
TINY_BERT = {"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 56}
SWIN_B = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 12}


def build(kind: str = "mm-grounding-dino", swin: dict | None = None, bert: dict | None = None, **sizes):
    """A model in eval mode; sizes in place of those of TINY (give full sizes by ``full`` below)."""
    config_class, model_class = CLASSES[kind]
    swin = {"out_indices": [2, 3, 4]} | (TINY_SWIN if swin is None else swin)
    config = config_class(
        backbone_config=transformers.SwinConfig(**swin),
        text_config=transformers.BertConfig(**(TINY_BERT if bert is None else bert)),
        **(TINY | {"num_queries": 30} | sizes),
    )
    return randomised(model_class(config).eval())


def full(kind: str, swin: dict | None = None):
    """Full size: Swin-T, or the backbone given, and BERT-base."""
    config_class, model_class = CLASSES[kind]
    shared = {} if kind == "grounding-dino" else {"decoder_bbox_embed_share": False, "decoder_cls_embed_share": False}
    swin = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7} | (swin or {})
    backbone = transformers.SwinConfig(out_indices=[2, 3, 4], **swin)
    return randomised(model_class(config_class(backbone_config=backbone, **shared)).eval())


def randomised(model):
    """Weights by the goldens' recipe, from each parameter's own name: far from the first ones, which are half zeros."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            kind = "gamma" if name.endswith(("vision_param", "text_param")) else "weight"
            last = name if parameter.ndim >= 2 or not name.endswith(("_param", "weight")) else f"{name}.{kind}"
            parameter.copy_(torch.from_numpy(np.asarray(recipe(last, list(parameter.shape)))))
    return model


def save(model, folder: Path, **options) -> Path:
    model.save_pretrained(folder, **options)
    return folder


def hub_folder(folder: Path, bert_layers: int = 2) -> Path:
    """A transformers folder with weights, tokenizer files and the settings of the photos, as on the hub."""
    sizes = {"encoder_layers": 1, "decoder_layers": 2, "d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    swin = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4}
    bert = {**TINY_BERT, "num_hidden_layers": bert_layers}
    save(build("grounding-dino", swin=swin, bert=bert, **sizes), folder)
    words = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = [f"[unused{index}]" for index in range(1100)]
    vocabulary[0], vocabulary[100], vocabulary[103] = "[PAD]", "[UNK]", "[MASK]"
    vocabulary[101], vocabulary[102], vocabulary[1012], vocabulary[1029] = "[CLS]", "[SEP]", ".", "?"
    vocabulary[200 : 200 + len(words)] = words
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"shortest_edge": 64, "longest_edge": 96}}))
    return folder
