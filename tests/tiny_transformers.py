"""transformers' GroundingDINO as small as it gets, with weights that are nowhere near their initial values."""

import json
from pathlib import Path

import numpy as np
from flax import nnx
from safetensors.numpy import load_file

from piza_jax.convert import hugging_face
from piza_jax.convert.check import fill
from piza_jax.piza.detector import PizaConfig, PizaDetector


def make_detector(folder: Path, mm: bool = False):
    """A random detector of transformers, saved in a folder; its tokenizer has fewer than 3000 tokens."""
    import torch
    import transformers

    names = ("MMGroundingDinoConfig", "MMGroundingDinoForObjectDetection")
    make_config, make_model = (getattr(transformers, name if mm else name[2:]) for name in names)
    config = make_config(
        backbone_config=transformers.SwinConfig(
            embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=7, out_indices=[2, 3, 4]
        ),
        text_config=transformers.BertConfig(
            vocab_size=3000, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        ),
        encoder_layers=1,
        decoder_layers=2,
        num_queries=30,
        d_model=64,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
    )
    torch.manual_seed(0)
    model = make_model(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn_like(value)
            if value.ndim >= 2:
                value.copy_(noise / np.sqrt(np.prod(value.shape[1:])))
            elif name.endswith("weight"):
                value.copy_(1 + 0.1 * noise)
            elif name.endswith("_param"):
                value.copy_(0.5 + 0.1 * noise)
            else:
                value.copy_(noise if "sampling_offsets" in name else 0.1 * noise)
    model.save_pretrained(folder)
    return model


def read_detector(folder: Path) -> PizaDetector:
    """Our detector with the weights of a folder."""
    config = hugging_face.read_config(json.loads((folder / "config.json").read_text()), str(folder))
    piza = PizaConfig(detector=config, adapter="none", history=False, zoom_projection="none")
    model = nnx.eval_shape(lambda: PizaDetector(piza, rngs=nnx.Rngs(0)))
    names = hugging_face.names(config.shared_box_head, config.shared_class_head)
    fill(model, load_file(folder / "model.safetensors"), names)
    return model
