"""The same few tensors in every format and layout of weight files."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

rng = np.random.default_rng(0)
WEIGHTS = {
    "layer.weight": rng.normal(size=(3, 5)).astype(np.float32),
    "layer.bias": rng.normal(size=5).astype(np.float32),
    "scale": np.array(1.5, np.float32),
    "double": rng.normal(size=4),
    "half": rng.normal(size=(2, 2)).astype(np.float16),
    "brain": rng.normal(size=(3, 7)).astype(ml_dtypes.bfloat16),
    "quarter": rng.normal(size=6).astype(ml_dtypes.float8_e4m3fn),
    "byte": np.arange(4, dtype=np.int8),
    "flag": np.array([True, False]),
}
OLD_WEIGHTS = {name: array for name, array in WEIGHTS.items() if name != "quarter"}  # the old format has no float8


def as_torch(arrays: dict) -> dict:
    torch = pytest.importorskip("torch", reason="the parity extra is not installed")

    def tensor(array: np.ndarray):
        if array.dtype.name in ("bfloat16", "float8_e4m3fn"):
            bits = torch.from_numpy(array.view(np.int16 if array.itemsize == 2 else np.uint8))
            return bits.view(getattr(torch, array.dtype.name))
        return torch.from_numpy(array)

    return {name: tensor(array) for name, array in arrays.items()}


def save_torch(held, path: Path, **options) -> Path:
    import torch

    torch.save(held, path, **options)
    return path


def sharded(folder: Path, ending: str, arrays: dict = WEIGHTS) -> Path:
    """Arrays in three shards with an index beside them."""
    folder.mkdir(exist_ok=True)
    places = {name: f"part-{index % 3}{ending}" for index, name in enumerate(arrays)}
    for shard in sorted(set(places.values())):
        held = {name: arrays[name] for name in arrays if places[name] == shard}
        save_file(held, folder / shard) if ending == ".safetensors" else save_torch(as_torch(held), folder / shard)
    index = folder / ("model.safetensors.index.json" if ending == ".safetensors" else "pytorch_model.bin.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


def prefixed(held: dict, prefix: str) -> dict:
    return {prefix + name: value for name, value in held.items()}


LAYOUTS = {
    "safetensors": lambda p: save_file(WEIGHTS, p / "a.safetensors") or p / "a.safetensors",
    "safetensors folder": lambda p: save_file(WEIGHTS, p / "model.safetensors") or p,
    "safetensors index": lambda p: sharded(p / "s", ".safetensors"),
    "safetensors shards in a folder": lambda p: sharded(p / "s", ".safetensors").parent,
    "bin": lambda p: save_torch(as_torch(WEIGHTS), p / "pytorch_model.bin"),
    "bin folder": lambda p: save_torch(as_torch(WEIGHTS), p / "pytorch_model.bin").parent,
    "bin shards in a folder": lambda p: sharded(p / "s", ".bin").parent,
    "pt, module in names": lambda p: save_torch(prefixed(as_torch(WEIGHTS), "module."), p / "a.pt"),
    "pth, below model": lambda p: save_torch(
        {"model": prefixed(as_torch(WEIGHTS), "module."), "epoch": 3, "lr": 0.1}, p / "a.pth"
    ),
    "pth, below state_dict": lambda p: save_torch({"state_dict": as_torch(WEIGHTS), "optimizer": {}}, p / "a.pth"),
    "pth, below module": lambda p: save_torch({"module": as_torch(WEIGHTS)}, p / "a.pth"),
    "pth of old": lambda p: save_torch(as_torch(OLD_WEIGHTS), p / "a.pth", _use_new_zipfile_serialization=False),
}
