"""Which parameters train: ordered rules over names, where a parameter that no rule covers is an error."""

import re
from collections.abc import Callable, Sequence

from flax import nnx

from piza_jax.errors import PizaError

_Rule = tuple[str, bool]

# The parameters that a method adds to the detector; its files in this package make them.
_ADDED = {
    "adapter_plus": r"/adapter[12]/",
    "coop": r"^detector/bert/context/",
    "lora": r"/lora_[ab]$",
    "vpt": r"/prompts/",
}
_TEXT_CONDITION = r"^detector/text_condition/"
_PIZA = r"^(zoom_embedding|history)/"
_NORMS = (r"/\w*norm\w*(/\d+)?/(scale|bias)$", True)
_GROUP_NORM = (r"/group_norm/", False)
# The plain detector's: of the detector, and added by no method.
_BASE = rf"^(?!.*({'|'.join((*_ADDED.values(), _TEXT_CONDITION)).replace('^', '')}))detector/"


def _rules(adapter: str, zooms: bool) -> tuple[_Rule, ...]:
    """The added parameters and all LayerNorms train, and with ``zooms`` what PIZA adds; other methods' are not covered.

    The release trains every LayerNorm too ("norm" in the name), which is 96,064 parameters at full size.
    """
    condition = ((_TEXT_CONDITION, zooms),) if adapter == "coop" else ()
    return ((_PIZA, zooms), *condition, (_ADDED[adapter], True), _GROUP_NORM, _NORMS, (_BASE, False))


METHODS: dict[str, tuple[_Rule, ...]] = {
    "none": ((r"", False),),
    "full": ((r"^history/", True), (r"^(detector|zoom_embedding)/", True)),
    **{f"{prefix}{adapter}": _rules(adapter, bool(prefix)) for adapter in _ADDED for prefix in ("", "piza_")},
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
    raise PizaError(
        f"no rule of fine-tuning method {method!r} covers the parameter {name}; "
        "take the method that model.adapter names, or add a rule in peft/select.py"
    )


def is_base(name: str) -> bool:
    """Whether the plain detector, without any method and without PIZA, has the parameter ``name``."""
    return re.search(_BASE, name) is not None


def belongs_to(method: str, name: str) -> bool:
    """Whether the parameter ``name`` is part of what ``method`` made of the plain detector.

    These are the parameters that the plain detector does not have, and those of its own that the method trains. The
    plain detector and they are the whole model.

    Raises:
        PizaError: as ``is_trainable``.
    """
    return is_trainable(method, name) or not is_base(name)


def trainable_filter(method: str, model: nnx.Module, freeze: Sequence[str] = ()) -> Callable[[tuple, object], bool]:
    """Filter for ``nnx.split`` that is True for the parameters of ``model`` that ``method`` trains.

    Args:
        method: its name.
        model: the model, of arrays or of abstract shapes.
        freeze: regular expressions of names that stay frozen all the same. Where nothing in front of a layer trains, no
            gradient goes there and none of its activations are kept: ``detector/(backbone|bert)/`` leaves the two
            backbones, whose norms a method would train, out of the backward pass.

    Raises:
        PizaError: if a parameter of the model is covered by no rule, the model lacks what the method adds, or an
            expression of ``freeze`` is none or matches nothing that the method trains.
    """
    names = [_name(path) for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))]
    trained = [name for name in names if is_trainable(method, name)]
    for rule in freeze:
        try:
            matched = any(re.search(rule, name) for name in trained)
        except re.error as error:
            raise PizaError(f"freeze: {rule!r} is not a regular expression: {error}") from error
        if not matched:
            raise PizaError(f"freeze: {rule!r} matches nothing that {method!r} trains, such as {trained[:1]}")
    added = _ADDED.get(method.removeprefix("piza_"))
    if added is not None and not any(re.search(added, name) for name in names):
        raise PizaError(
            f"the model has no parameters of fine-tuning method {method!r}; "
            f"set model.adapter to {method.removeprefix('piza_')!r}, or take another method"
        )

    def predicate(path: tuple, value: object) -> bool:
        kind = getattr(value, "type", type(value))
        name = _name(path)
        if not (isinstance(kind, type) and issubclass(kind, nnx.Param) and is_trainable(method, name)):
            return False
        return not any(re.search(rule, name) for rule in freeze)

    return predicate


def split(model: nnx.Module, method: str, freeze: Sequence[str] = ()) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """Graph, trainable state and frozen state; put together again by ``nnx.merge(graph, train, frozen, copy=True)``.

    Arguments and errors as ``trainable_filter``.
    """
    graph, *states = nnx.split(model, trainable_filter(method, model, freeze), ...)
    return graph, states[0], states[1]


def count(state: nnx.State) -> int:
    """Number of parameters in a state, of arrays or of abstract shapes."""
    return sum(int(value.size) for _, value in nnx.to_flat_state(state))
