"""PyTorch's weight files, without running any code that they hold.

A .pth is a pickle, and training frameworks put their own objects beside the weights. torch's restricted unpickler makes
nothing but what it was allowed to; for a short list of harmless names it gets stand-ins here that hold nothing and do
nothing, so that no foreign module is imported. A file with any other name is refused.
"""

import pickletools
import re
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from piza_jax.convert.lazy import LazyTensors, Read, remapped
from piza_jax.errors import PizaError

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_WEIGHTS_BELOW = ("model", "state_dict", "module")


class _Inert:
    """Takes any arguments and any state and keeps none."""

    def __new__(cls, *_args: Any) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *_args: Any):
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


class _InertMapping:
    """An empty dictionary: the unpickler puts items into nothing but real ones."""

    def __new__(cls, *_args: Any) -> Any:
        return {}


class _InertList:
    """An empty list, for the same reason."""

    def __new__(cls, *_args: Any) -> Any:
        return []


# What checkpoints of mmdetection and of plain training scripts hold beside tensors.
_STAND_INS: tuple[tuple[str, type], ...] = (
    (r"(mmengine|mmcv|mmdet)\.(\w+\.)*ConfigDict|addict\.(\w+\.)*Dict|collections\.defaultdict", _InertMapping),
    (r"collections\.deque", _InertList),
    (r"(mmengine|mmcv|mmdet)\.[\w.]+", _Inert),
    (r"argparse\.Namespace|pathlib\.\w*Path|builtins\.(getattr|list|dict|int|float|str|bool|slice)", _Inert),
    (r"numpy\.(_?core\.multiarray\.(_reconstruct|scalar)|ndarray|dtype|dtypes\.\w+|u?int\d+|float\d+|bool_?)", _Inert),
)


def read(path: Path, budget: int) -> LazyTensors:
    """Tensors of a file that ``torch.save`` wrote.

    The state dict may lie at the top or below "model", "state_dict" or "module"; a "module." in front of names goes.

    Args:
        path: the file.
        budget: bytes to read before the file is mapped anew; a file older than torch 1.6's format is read whole.

    Raises:
        PizaError: torch is absent, or the file is damaged, holds no tensors, or names code or classes that are not
            among the harmless ones.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise PizaError(
            f'{path} is a PyTorch file, and torch is not installed; run pip install "piza-jax[parity]", or take the '
            "weights as .safetensors"
        ) from error
    with path.open("rb") as file:
        start = file.read(len(_ZIP))
    if start != _ZIP and not start.startswith(_PICKLE):
        raise PizaError(f"{path} is damaged or no file that torch.save wrote; download or copy it again")
    allowed = _allowed(path, is_zip=start == _ZIP)
    state = _load(path, allowed, mapped=start == _ZIP)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if start != _ZIP:
        return LazyTensors(shapes, partial(_array, path, state))
    del state  # and with it the mapping

    def open_file() -> Read:
        return partial(_array, path, _load(path, allowed, mapped=True))

    return LazyTensors(shapes, remapped(open_file, budget))


def _allowed(path: Path, is_zip: bool) -> list[tuple[type, str]]:
    """Stand-ins for the harmless names in the file; one with others is refused here, or by torch if it is an old one.

    torch alone knows which names it makes itself; it tells so for its newer format only.
    """
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        names = set(get_unsafe_globals_in_checkpoint(str(path))) if is_zip else _names_in_old_file(path)
    except Exception as error:  # whatever a parser makes of broken bytes
        raise _damaged(path, error) from error
    stand_ins = []
    for name in sorted(names):
        kinds = [kind for pattern, kind in _STAND_INS if re.fullmatch(pattern, name)]
        stand_ins += [(kind, name) for kind in kinds[:1]]
    if is_zip and (refused := sorted(names - {name for _, name in stand_ins})):
        raise _refusal(path, refused)
    return stand_ins


def _names_in_old_file(path: Path) -> set[str]:
    """Names of globals in a file older than torch 1.6's format: pickles end to end, the fourth with the contents."""
    names: set[str] = set()
    with path.open("rb") as file:
        for _ in range(4):
            for code, argument, _place in pickletools.genops(file):
                if code.name == "GLOBAL":
                    names.add(re.sub(r"^__builtin__\b", "builtins", str(argument).replace(" ", ".")))
    return names


def _refusal(path: Path, names: list[str]) -> PizaError:
    return PizaError(
        f"{path} holds more than weights: {', '.join(names)} would be made or run on loading it. It was not loaded. "
        "Where you trust the file, save its weights alone: "
        f"torch.save(torch.load({str(path)!r}, weights_only=False)['state_dict'], 'weights.pth')"
    )


def _damaged(path: Path, error: Exception) -> PizaError:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return PizaError(f"{path} is damaged or no file that torch.save wrote ({reason[0]}); download or copy it again")


def _load(path: Path, allowed: list[tuple[type, str]], mapped: bool) -> dict[str, Any]:
    """Name -> torch tensor."""
    import torch
    from torch.serialization import safe_globals

    try:
        with safe_globals(allowed):  # type: ignore[arg-type]
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # whatever a parser makes of broken bytes
        if refused := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise _refusal(path, [refused[1]]) from error
        raise _damaged(path, error) from error
    top = loaded
    while isinstance(loaded, dict):
        below = [loaded[key] for key in _WEIGHTS_BELOW if isinstance(loaded.get(key), dict)]
        if not below:
            break
        loaded = below[0]
    items = loaded.items() if isinstance(loaded, dict) else ()
    tensors = [(name, value) for name, value in items if isinstance(value, torch.Tensor) and isinstance(name, str)]
    if not tensors:
        held = f"the entries {', '.join(map(str, top))[:200]}" if isinstance(top, dict) else f"a {type(top).__name__}"
        raise PizaError(
            f"{path} holds no named tensors but {held}; tensors are looked for at the top and below "
            f"{', '.join(_WEIGHTS_BELOW)}"
        )
    stripped = {re.sub(r"^(module\.)+", "", name): value for name, value in tensors}
    if len(stripped) < len(tensors):
        raise PizaError(f"{path} holds the same names with and without 'module.' in front; save one set of them")
    return stripped


def _array(path: Path, state: dict[str, Any], name: str) -> np.ndarray:
    """A copy of a tensor; the types that NumPy lacks are ml_dtypes'."""
    import torch

    tensor = state[name].detach()
    kind = str(tensor.dtype).removeprefix("torch.")
    try:
        if hasattr(ml_dtypes, kind):
            bits = {1: torch.uint8, 2: torch.int16}[tensor.element_size()]
            return tensor.contiguous().view(bits).numpy().copy().view(getattr(ml_dtypes, kind))
        return tensor.numpy().copy()
    except (TypeError, RuntimeError, KeyError) as error:
        raise PizaError(
            f"{path}: the tensor {name} ({kind}, {tensor.layout}) cannot be read as a plain array; save the weights as "
            "float32, float16 or bfloat16"
        ) from error
