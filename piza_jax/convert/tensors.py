"""Weight files and folders of them as lazy mappings from names to arrays."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from piza_jax.convert import torch_files
from piza_jax.convert.lazy import BUDGET, LazyTensors
from piza_jax.errors import PizaError

_TYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    **{f"{letter}{8 * size}": np.dtype(f"<{letter.lower()}{size}") for letter in "IU" for size in (1, 2, 4, 8)},
    "BOOL": np.dtype(bool),
}
INDEX = ".index.json"
IN_A_FOLDER = ("model.safetensors", "model.safetensors" + INDEX, "pytorch_model.bin", "pytorch_model.bin" + INDEX)


def open_weights(path: str | os.PathLike[str]) -> LazyTensors:
    """Tensors of a weight file, read when they are looked up.

    Args:
        path: a .safetensors, .pth, .pt or .bin file, the .index.json of a sharded set, or a folder that holds one of
            ``IN_A_FOLDER``. Files of PyTorch need torch (``pip install "piza-jax[parity]"``) and run no code.

    Returns:
        Name -> array in the file's own shape and dtype, bfloat16 and float8 as ml_dtypes'.

    Raises:
        PizaError: the file is absent, unreadable, empty, damaged, of another kind, or a PyTorch file that holds
            objects which only its own code could make.
    """
    try:
        return _open(Path(path).expanduser(), BUDGET)
    except OSError as error:
        place = error.filename or path
        raise PizaError(f"{place} cannot be read ({error.strerror}); check its permissions") from error


def _open(path: Path, budget: int) -> LazyTensors:
    if path.is_dir():
        path = _in_folder(path)
    if path.name.endswith(INDEX):
        return _sharded(path)
    if path.suffix not in _READERS:
        known = ", ".join([*_READERS, INDEX])
        raise PizaError(f"{path} is no weight file that can be read; known endings are {known}")
    _check_start(path)
    return _READERS[path.suffix](path, budget)


def _in_folder(folder: Path) -> Path:
    for name in IN_A_FOLDER:
        if (folder / name).is_file():
            return folder / name
    held = sorted(item.name for item in folder.iterdir())
    there = ", ".join(held[:8]) + (" ..." if len(held) > 8 else "") if held else "nothing"
    raise PizaError(
        f"the folder {folder} holds no weights: none of {', '.join(IN_A_FOLDER)}; it has {there}. "
        "Name the weight file itself if it is called otherwise"
    )


def _check_start(path: Path) -> None:
    """Kinds of files that stand in place of weights after a download that went wrong."""
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip().lower()
    except FileNotFoundError:
        raise PizaError(f"there is no file {path}; check the path") from None
    if not start:
        raise PizaError(f"{path} is empty; download or copy it again")
    if start.startswith(b"version https://git-lfs"):
        raise PizaError(
            f"{path} is a git-lfs pointer, a text of three lines in place of the weights; run `git lfs pull` in its "
            "repository, or download the file itself"
        )
    if start.startswith((b"<!doctype", b"<html")):
        raise PizaError(f"{path} is a web page, not weights; download the file itself")


def _safetensors(path: Path, _budget: int) -> LazyTensors:
    """Plain reads at the header's offsets: the library's NumPy side lacks float8 and maps the whole file."""
    try:
        with safe_open(path, "numpy"):  # compares the header with the length of the file
            pass
    except (SafetensorError, OSError) as error:
        raise PizaError(f"{path} is damaged or no safetensors file ({error}); download or copy it again") from error
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
    header.pop("__metadata__", None)
    if strange := sorted({entry["dtype"] for entry in header.values()} - _TYPES.keys()):
        raise PizaError(f"{path} holds tensors of the types {', '.join(strange)}; save them as float32 or bfloat16")

    def read(name: str) -> np.ndarray:
        kind, shape, (begin, _end) = (header[name][key] for key in ("dtype", "shape", "data_offsets"))
        try:
            return np.fromfile(path, _TYPES[kind], math.prod(shape), offset=start + begin).reshape(shape)
        except (OSError, ValueError) as error:
            raise PizaError(f"{path} changed or went away while {name} was read ({error}); load it again") from error

    return LazyTensors({name: tuple(entry["shape"]) for name, entry in header.items()}, read)


def _sharded(index: Path) -> LazyTensors:
    _check_start(index)
    try:
        places = json.loads(index.read_text())["weight_map"]
        shard_of = {str(name): str(shard) for name, shard in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PizaError(
            f"{index} is no index of a sharded set (no JSON object with a weight_map); download it again"
        ) from error
    names = sorted(set(shard_of.values()))
    if absent := [name for name in names if not (index.parent / name).is_file()]:
        raise PizaError(
            f"{index} names the shards {', '.join(absent)}, which are not beside it; download them into {index.parent}"
        )
    shards = {name: _open(index.parent / name, BUDGET // len(names)) for name in names}
    for name, shard in shard_of.items():
        if name not in shards[shard]:
            raise PizaError(
                f"{index} puts the tensor {name} into {shard}, which does not hold it; download the index and its "
                "shards again, all from one place"
            )

    def read(name: str) -> np.ndarray:
        return shards[shard_of[name]][name]

    return LazyTensors({name: shards[shard].shapes[name] for name, shard in shard_of.items()}, read)


_READERS: dict[str, Callable[[Path, int], LazyTensors]] = {
    ".safetensors": _safetensors,
    ".pth": torch_files.read,
    ".pt": torch_files.read,
    ".bin": torch_files.read,
}
