"""The paper's optimiser: AdamW with a lower rate for the backbone, gradient clipping and a step schedule."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from piza_jax.errors import PizaError


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its schedule; the defaults are the released recipe (lr 2e-4, batch 32, 5 epochs)."""

    learning_rate: float = 2e-4
    # (regular expression searched in a parameter's name, factor on its learning rate); the first match counts.
    rate_factors: tuple[tuple[str, float], ...] = (("(^|/)backbone/", 0.1),)
    # Regular expressions of the names that are not decayed.
    no_decay: tuple[str, ...] = ()
    weight_decay: float = 1e-4
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    clip_norm: float = 0.1  # 0 switches clipping off
    schedule: str = "step"  # "step", "cosine" or "constant"
    decay_epochs: tuple[float, ...] = (3.0,)
    decay_factor: float = 0.1
    warmup_steps: int = 0
    accumulate: int = 1  # batches whose gradients are averaged for one update

    @staticmethod
    def from_mapping(mapping: Mapping[str, Any]) -> "OptimizerConfig":
        """Read a plain mapping; PizaError names a key that does not exist."""
        unknown = set(mapping) - set(OptimizerConfig.__dataclass_fields__)
        if unknown:
            raise PizaError(
                f"unknown optimizer key {', '.join(sorted(unknown))}; "
                f"the keys are {', '.join(OptimizerConfig.__dataclass_fields__)}"
            )
        return OptimizerConfig(**mapping)


def make_schedule(config: OptimizerConfig, steps_per_epoch: float, num_steps: int) -> optax.Schedule:
    """Learning rate by update count (batches / accumulate), with the linear warm-up in front of the chosen schedule.

    Args:
        config: which schedule and its figures; decay_epochs are counted from the first batch, warm-up included.
        steps_per_epoch: batches in an epoch.
        num_steps: batches in the whole run (the end of the cosine).
    """
    base, updates = config.learning_rate, max(num_steps // config.accumulate, 1)
    if config.schedule == "step":
        boundaries = {
            max(round(epoch * steps_per_epoch / config.accumulate), 1): config.decay_factor
            for epoch in config.decay_epochs
        }
        schedule = optax.piecewise_constant_schedule(base, boundaries)
    elif config.schedule == "cosine":
        schedule = optax.cosine_decay_schedule(base, updates)
    elif config.schedule == "constant":
        schedule = optax.constant_schedule(base)
    else:
        raise PizaError(f"optimizer.schedule={config.schedule!r} is none of 'step', 'cosine', 'constant'")
    if not config.warmup_steps:
        return schedule

    def warmed(count: jax.typing.ArrayLike) -> jax.Array:
        return schedule(count) * jnp.minimum((jnp.asarray(count) + 1) / config.warmup_steps, 1.0)

    return warmed


def check_rules(config: OptimizerConfig, names: Iterable[str]) -> None:
    """PizaError for a name rule that is no regular expression or matches no parameter of the model, frozen or not."""
    names = list(names)
    for rule in (*(rule for rule, _ in config.rate_factors), *config.no_decay):
        try:
            matched = any(re.search(rule, name) for name in names)
        except re.error as error:
            raise PizaError(f"optimizer rule {rule!r} is not a regular expression: {error}") from error
        if not matched:
            raise PizaError(f"optimizer rule {rule!r} matches no parameter of the model, such as {names[0]!r}")


def make_optimizer(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """AdamW over {name: array}: clip by the global norm, Adam, decoupled decay, rate by name and schedule."""

    def decay_mask(params: Mapping[str, jax.Array]) -> dict[str, bool]:
        return {name: not any(re.search(rule, name) for rule in config.no_decay) for name in params}

    def scale_by_name(updates: Mapping[str, jax.Array], params: object) -> dict[str, jax.Array]:
        del params
        return {name: update * first_factor(config.rate_factors, name) for name, update in updates.items()}

    steps = [
        optax.scale_by_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(config.weight_decay, decay_mask),
        optax.stateless(scale_by_name),  # type: ignore[arg-type]
        optax.scale_by_learning_rate(schedule),
    ]
    if config.clip_norm:
        steps.insert(0, optax.clip_by_global_norm(config.clip_norm))
    chained = optax.chain(*steps)
    if config.accumulate < 1:
        raise PizaError(f"optimizer.accumulate={config.accumulate} must be at least 1")
    if config.accumulate == 1:
        return chained
    return optax.MultiSteps(chained, config.accumulate).gradient_transformation()


def first_factor(rules: Iterable[tuple[str, float]], name: str) -> float:
    """The factor of the first rule whose regular expression is found in a parameter's name, or 1."""
    return next((factor for rule, factor in rules if re.search(rule, name)), 1.0)
