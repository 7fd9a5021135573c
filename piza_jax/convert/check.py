"""Filling a model from foreign tensors and writing it out under foreign names: nothing is left over on either side."""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

import jax
import numpy as np
from flax import nnx

from piza_jax.convert.names import NameMap, Source
from piza_jax.errors import PizaError
from piza_jax.piza.detector import PizaDetector


def sizes_of(model: PizaDetector) -> dict[str, int]:
    """The numbers that name templates speak of."""
    config = model.config.detector
    first = config.swin.first_output
    return {
        "first": first,
        "next": first + 1,
        "laterals": len(config.swin.depths) - first,
        "decoder_layers": config.decoder_layers,
    }


def _listing(names: list[str], limit: int = 8) -> str:
    shown = ", ".join(sorted(names)[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def fill(
    model: PizaDetector,
    tensors: Mapping[str, np.ndarray],
    names: NameMap,
    *,
    where: str = "the checkpoint",
) -> dict[str, str]:
    """Write foreign tensors into the parameters of ``model``, in place, in the parameter's own dtype.

    Args:
        model: the detector to fill; an abstract one (``nnx.eval_shape``) becomes a real one, one tensor after another,
            so that memory holds little more than the model.
        tensors: foreign name -> array; each is read once.
        names: the code base's names.
        where: the file, for messages.

    Returns:
        Foreign names that were ignored, with the reasons.

    Raises:
        PizaError: naming the parameters that stay empty, the tensors that nobody uses and the shapes that differ; the
            model is left as it was.
    """
    state, sizes = nnx.state(model, nnx.Param), sizes_of(model)
    filled, missing, shapes, kinds = [], [], [], []
    used: set[str] = set()
    shared = lru_cache(maxsize=2)(lambda name: np.asarray(tensors[name]))  # three parameters lie in one tensor
    for path, parameter in nnx.to_flat_state(state):
        ours = "/".join(str(part) for part in path)
        source = names.source_of(ours, sizes)
        if absent := [name for name in source.names if name not in tensors]:
            missing.append(f"{ours} (from {', '.join(absent)})")
            continue
        used.update(source.names)
        read = tensors.__getitem__ if source.third is None else shared
        arrays = [np.asarray(read(name)) for name in source.names]
        if any(not np.issubdtype(array.dtype, np.floating) and array.dtype.name != "bfloat16" for array in arrays):
            kinds.append(f"{source.names[0]} {arrays[0].dtype}")
            continue
        array = source.turn(arrays)
        if array.shape != parameter.shape:
            theirs = ", ".join(f"{name} {a.shape}" for name, a in zip(source.names, arrays, strict=True))
            shapes.append(f"{ours} {parameter.shape} from {theirs}")
            continue
        filled.append((path, parameter.replace(jax.device_put(np.array(array, parameter.dtype, order="C")))))
    left, unused, unequal = {}, [], []
    for name in tensors:
        if name in used:
            continue
        original = names.original(name)
        if original in used:
            if not np.array_equal(tensors[name], tensors[str(original)]):
                unequal.append(f"{name} differs from {original}")
            left[name] = f"a repetition of {original}"
        elif reason := names.reason(name):
            left[name] = reason
        else:
            unused.append(name)
    problems = [
        f"{len(listed)} {what}: {_listing(listed)}"
        for listed, what in (
            (missing, "parameters of the model without a tensor"),
            (unused, "tensors without a place in the model"),
            (shapes, "tensors of another shape"),
            (kinds, "tensors that hold no floating point numbers"),
            (unequal, "tensors that should repeat others and do not"),
        )
        if listed
    ]
    if problems:
        raise PizaError(f"{where} does not fit this configuration ({names.label}); {'; '.join(problems)}")
    nnx.update(model, nnx.from_flat_state(filled))
    return left


def _foreign(
    model: PizaDetector, names: NameMap, skip: tuple[str, ...], value: Callable[[nnx.Param], np.ndarray]
) -> Iterator[tuple[Source, list[np.ndarray]]]:
    sizes = sizes_of(model)
    for path, parameter in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        ours = "/".join(str(part) for part in path)
        if not ours.startswith(skip):
            source = names.source_of(ours, sizes)
            yield source, source.back(value(parameter))


def written(model: PizaDetector, names: NameMap, skip: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The parameters of ``model`` under foreign names, as contiguous arrays.

    Args:
        model: a filled detector.
        names: the code base's names.
        skip: beginnings of our names that stay at home, such as parts for training only.

    Raises:
        PizaError: a parameter has no counterpart there, such as an adapter.
    """
    tensors: dict[str, np.ndarray] = {}
    thirds: dict[str, dict[int, np.ndarray]] = {}
    for source, arrays in _foreign(model, names, skip, lambda parameter: np.asarray(parameter.get_value())):
        if source.third is not None:
            thirds.setdefault(source.names[0], {})[source.third] = arrays[0]
            continue
        tensors.update(zip(source.names, map(np.ascontiguousarray, arrays), strict=True))
    tensors.update((name, np.concatenate([parts[i] for i in range(3)])) for name, parts in thirds.items())
    return tensors


def written_shapes(model: PizaDetector, names: NameMap, skip: tuple[str, ...] = ()) -> dict[str, tuple[int, ...]]:
    """Shapes of what ``written`` gives, also of an abstract model (``nnx.eval_shape``).

    Args:
        model: a detector with or without arrays.
        names: the code base's names.
        skip: beginnings of our names that stay at home.

    Raises:
        PizaError: a parameter has no counterpart there.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for source, arrays in _foreign(
        model, names, skip, lambda parameter: np.broadcast_to(np.float32(0), parameter.shape)
    ):
        for name, array in zip(source.names, arrays, strict=True):
            rows = array.shape[:1] if source.third is None else (3 * array.shape[0],)
            shapes[name] = (*rows, *array.shape[1:])
    return shapes
