"""Matrix FLOPs of a traced program, loops counted as often as they run.

The compiler's own count takes the body of a loop once. Here matrix products and convolutions are counted in the traced
program, before it is partitioned: those of the backward pass and of recomputed layers are in it as they stand.
"""

import math
from collections.abc import Iterator
from typing import Any

from jax.extend import core


def matmul_flops(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> float:
    """FLOPs (two for each multiplication with its addition) of all devices together.

    The dearest branch of a condition counts. A ``while`` of unknown length counts once; ``unknown_loops`` tells how
    many there are.
    """
    return sum(
        _own(equation) + sum(times * matmul_flops(inner) for times, inner in _weighted(equation))
        for equation in _open(jaxpr).eqns
    )


def unknown_loops(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> int:
    """Number of ``while`` loops with matrix products whose length is not known before they run."""
    return sum(
        (equation.primitive.name == "while" and any(matmul_flops(inner) for inner in _inner(equation)))
        + sum(unknown_loops(inner) for inner in _inner(equation))
        for equation in _open(jaxpr).eqns
    )


def _open(jaxpr: Any) -> Any:
    return jaxpr.jaxpr if hasattr(jaxpr, "jaxpr") else jaxpr


def _own(equation: Any) -> float:
    name = equation.primitive.name
    if name == "dot_general":
        (contracting, _), _ = equation.params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracting)
    if name == "conv_general_dilated":
        kernel, features = equation.invars[1].aval.shape, equation.params["dimension_numbers"].rhs_spec[0]
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) / kernel[features]
    return 0.0


def _inner(equation: Any) -> Iterator[Any]:
    for value in equation.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(item, "eqns") or hasattr(item, "jaxpr"):
                yield item


def _weighted(equation: Any) -> Iterator[tuple[float, Any]]:
    name, params = equation.primitive.name, equation.params
    inner = list(_inner(equation))
    if name == "cond":
        yield 1.0, max(inner, key=matmul_flops)
        return
    times = 1.0
    if name == "scan":
        times = params["length"]
    elif name == "shard_map":  # its inside is one device's share
        times = math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
    for jaxpr in inner:
        yield times, jaxpr
