"""Reference goldens: the weight recipe, and our model built and filled for one of them."""

import dataclasses
import json
import zlib
from pathlib import Path

import numpy as np

from piza_jax.convert import mmdet
from piza_jax.models.config import BertConfig, DetectorConfig, SwinConfig
from piza_jax.piza.abstract import abstract_detector
from piza_jax.piza.detector import PizaConfig, PizaDetector

NAMES = (
    "mmdet_grounding_dino_b1",
    "mmdet_grounding_dino_b2_padded",
    "mmdet_piza_adapter_b1",
    "mmdet_piza_adapter_b2_padded",
)


def recipe(name: str, shape: list[int]) -> np.ndarray:
    """Weight of the reference parameter ``name``, as the goldens' README defines it."""
    n = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape).astype(np.float32)
    if len(shape) >= 2:
        return n / np.sqrt(np.prod(shape[1:])).astype(np.float32)
    last = name.split(".")[-1]
    if last in ("weight", "scaling"):
        return 1 + np.float32(0.1) * n
    if last.startswith("gamma"):
        return np.float32(0.5) + np.float32(0.1) * n
    if "sampling_offsets" in name:
        return n
    return np.float32(0.1) * n


def load(folder: Path, name: str) -> tuple[dict, dict[str, np.ndarray]]:
    meta = json.loads((folder / "goldens" / f"{name}.json").read_text())
    with np.load(folder / "goldens" / f"{name}.npz") as arrays:
        return meta, dict(arrays)


def config_of(meta: dict, **overrides) -> PizaConfig:
    """Our configuration of a golden; ``overrides`` are fields of the detector."""
    sizes = meta["config"]
    detector = DetectorConfig(
        swin=SwinConfig(dim=sizes["swin_dim"], depths=tuple(sizes["depths"]), heads=tuple(sizes["swin_heads"])),
        bert=BertConfig(dim=48, layers=2, heads=4, hidden=96),
        encoder_layers=sizes["enc"],
        decoder_layers=sizes["dec"],
        hidden=128,
        text_hidden=64,
        fusion_dim=64,
        queries=sizes["queries"],
        mask_fusion_text=False,
    )
    return PizaConfig(
        detector=dataclasses.replace(detector, **overrides),
        adapter="adapter_plus" if sizes["piza"] else "none",
        adapter_dim=32,
        zoom_projection="per_adapter",
        history=sizes["piza"],
    )


def build(meta: dict, **overrides) -> tuple[PizaDetector, dict[str, str]]:
    model = abstract_detector(config_of(meta, **overrides))
    tensors = {key: recipe(key, shape) for key, shape in meta["params"].items()}
    return model, mmdet.load_tensors(model, tensors)
