"""Where groundings run: on one device, or on several that share a batch."""

from collections.abc import Callable
from typing import Any, Protocol

import jax


class Placement(Protocol):
    """What a Grounder asks of devices; ``training.sharding.Spread`` is one of several of them.

    Attributes:
        parts: in how many parts a batch is split; it has to divide by them.
    """

    parts: int

    def model(self, state: Any) -> Any:
        """Weights of a model, where ``compile``'s programs find them."""

    def batch(self, tree: Any) -> Any:
        """NumPy arrays [B, ...] of a whole batch, each part where it is worked on."""

    def compile(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """A function of weights and batched arrays to batched arrays, as a program that runs on each part alone."""

    def fetch(self, tree: Any) -> Any:
        """What a program gave, as NumPy arrays of the whole batch."""


class OneDevice:
    """The default device has the whole batch."""

    parts = 1

    def model(self, state: Any) -> Any:
        """As it is."""
        return state

    def batch(self, tree: Any) -> Any:
        """As it is: the call of the program moves it."""
        return tree

    def compile(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """Just compiled."""
        return jax.jit(run)

    def fetch(self, tree: Any) -> Any:
        """Moved to the host."""
        return jax.device_get(tree)
