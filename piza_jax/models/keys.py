"""Random keys for building a model under a trace."""

from typing import Any, cast

import jax
from flax import nnx


class _Keys:
    """The stream of nnx.Rngs with its count on the host.

    nnx keeps the count in a variable; under a trace each key then costs a walk through the whole program so far, which
    at full size adds up to twenty seconds.
    """

    def __init__(self, seed: int):
        self._key, self._count = jax.random.key(seed), 0

    def params(self) -> jax.Array:
        """The next key, as nnx.Rngs(seed) would give it."""
        self._count += 1
        return jax.random.fold_in(self._key, self._count - 1)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"models draw keys of the stream 'params' only, not {name!r}")


def make_keys(seed: int) -> nnx.Rngs:
    """What a model takes as ``rngs``: the keys of ``nnx.Rngs(seed)``, quick under a trace."""
    return cast(nnx.Rngs, _Keys(seed))
