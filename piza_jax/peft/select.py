"""Which parameters train: ordered rules over names, where a parameter that no rule covers is an error."""

import re
from collections.abc import Callable

from flax import nnx

from piza_jax.errors import PizaError

_ADAPTERS = (r"/adapter[12]/", True)
_NORMS = (r"/\w*norm\w*(/\d+)?/(scale|bias)$", True)
_GROUP_NORM = (r"/group_norm/", False)
_PIZA = (r"^(zoom_embedding|history)/", True)
_BASE = (r"^detector/", False)

# The release also trains every LayerNorm ("norm" in the name), which is 96,064 parameters at full size.
METHODS: dict[str, tuple[tuple[str, bool], ...]] = {
    "full": ((r"^history/", True), (r"^(detector|zoom_embedding)/", True)),
    "adapter_plus": ((_PIZA[0], False), _ADAPTERS, _GROUP_NORM, _NORMS, _BASE),
    "piza_adapter_plus": (_PIZA, _ADAPTERS, _GROUP_NORM, _NORMS, _BASE),
    "none": ((r"", False),),
}


def _name(path: tuple) -> str:
    return "/".join(str(part) for part in path)


def is_trainable(method: str, name: str) -> bool:
    """Whether ``method`` trains the parameter ``name`` such as "detector/enhancer/layers/0/image/adapter1/up/kernel".

    Raises:
        PizaError: if there is no such method or none of its rules covers the name.
    """
    if method not in METHODS:
        raise PizaError(f"there is no fine-tuning method {method!r}; choose one of {', '.join(sorted(METHODS))}")
    for pattern, trainable in METHODS[method]:
        if re.search(pattern, name):
            return trainable
    raise PizaError(f"no rule of fine-tuning method {method!r} covers the parameter {name}; add one in peft/select.py")


def trainable_filter(method: str, model: nnx.Module) -> Callable[[tuple, object], bool]:
    """Filter for ``nnx.split`` that is True for the parameters of ``model`` that ``method`` trains.

    Raises:
        PizaError: if a parameter of the model is covered by no rule.
    """
    for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        is_trainable(method, _name(path))

    def predicate(path: tuple, value: object) -> bool:
        kind = getattr(value, "type", type(value))
        return isinstance(kind, type) and issubclass(kind, nnx.Param) and is_trainable(method, _name(path))

    return predicate


def split(model: nnx.Module, method: str) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """Graph, trainable state and frozen state; put together again by ``nnx.merge(graph, train, frozen, copy=True)``."""
    graph, *states = nnx.split(model, trainable_filter(method, model), ...)
    return graph, states[0], states[1]


def count(state: nnx.State) -> int:
    """Number of parameters in a state, of arrays or of abstract shapes."""
    return sum(int(value.size) for _, value in nnx.to_flat_state(state))
