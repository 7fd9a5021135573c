"""Filling a model from foreign tensors, with nothing left over on either side."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from flax import nnx

from piza_jax.errors import PizaError


@dataclass(frozen=True)
class Source:
    """Where one of our parameters comes from: a foreign tensor's name and how its array is turned into ours."""

    name: str
    turn: Callable[[np.ndarray], np.ndarray]


def _listing(names: list[str], limit: int = 8) -> str:
    shown = ", ".join(sorted(names)[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def fill(
    model: nnx.Module,
    tensors: Mapping[str, np.ndarray],
    source_of: Callable[[str], Source],
    ignored: Callable[[str], str | None],
) -> dict[str, str]:
    """Write foreign tensors into every parameter of ``model``, in place, in the parameter's own dtype.

    Args:
        model: the module to fill.
        tensors: foreign name -> array.
        source_of: our parameter's name ("detector/neck/lateral/0/conv/kernel") -> its source.
        ignored: foreign name -> the reason why it has no place in the model, or None.

    Returns:
        Foreign names that were ignored, with the reasons.

    Raises:
        PizaError: naming the parameters that stay empty, the tensors that nobody uses and the shapes that differ; the
            model is left as it was.
    """
    state = nnx.state(model, nnx.Param)
    filled, used, missing, shapes = {}, set(), [], []
    for path, parameter in nnx.to_flat_state(state):
        ours = "/".join(str(part) for part in path)
        source = source_of(ours)
        if source.name not in tensors:
            missing.append(f"{ours} (from {source.name})")
            continue
        used.add(source.name)
        array = source.turn(np.asarray(tensors[source.name]))
        if array.shape != parameter.shape:
            shapes.append(f"{ours} {parameter.shape} from {source.name} {tuple(tensors[source.name].shape)}")
            continue
        filled[path] = array.astype(parameter.dtype)
    left = {name: ignored(name) for name in tensors if name not in used}
    unused = [name for name, reason in left.items() if reason is None]
    problems = [
        f"{len(names)} {what}: {_listing(names)}"
        for names, what in (
            (missing, "parameters of the model without a tensor"),
            (unused, "tensors without a place in the model"),
            (shapes, "tensors of another shape"),
        )
        if names
    ]
    if problems:
        raise PizaError("the checkpoint does not fit this configuration; " + "; ".join(problems))
    for path, parameter in nnx.to_flat_state(state):
        parameter[...] = filled[path]
    nnx.update(model, state)
    return {name: reason for name, reason in left.items() if reason is not None}
