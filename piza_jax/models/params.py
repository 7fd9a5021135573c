"""Parameters as flat dictionaries {"encoder/0/kernel": array}, the one form that the trainer handles."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from piza_jax.errors import PizaError


def flatten_state(state: nnx.State) -> dict[str, Any]:
    """State -> {name: array}; a name is the path of the variable in the model, joined by slashes."""
    return {_name(path): variable.get_value() for path, variable in nnx.to_flat_state(state)}


def unflatten_state(template: nnx.State, values: Mapping[str, Any]) -> nnx.State:
    """The inverse of flatten_state for a state of the template's structure, whose own values are not used."""
    pairs = [(path, variable.replace(values[_name(path)])) for path, variable in nnx.to_flat_state(template)]
    return nnx.from_flat_state(pairs)


def check_same(expected: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    """PizaError that lists what differs in names and shapes between the model's arrays and those found in a file.

    Args:
        expected: {name: anything with .shape} of the model.
        found: {name: anything with .shape} of the file.
        where: the file, for the message.
    """
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is unknown to the model" for name in found if name not in expected]
    problems += [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in found and tuple(found[name].shape) != tuple(expected[name].shape)
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise PizaError(f"{where} belongs to another configuration: {'; '.join(problems[:5])}{more}")


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(map(str, path))
