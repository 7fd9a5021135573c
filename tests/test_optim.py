"""The optimiser against AdamW written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from piza_jax.errors import PizaError
from piza_jax.training.optim import OptimizerConfig, check_rules, make_optimizer, make_schedule

SHAPES = {"backbone/norm/scale": (5,), "encoder/adapter/kernel": (4, 3), "history/bias": (2,)}


def reference(config, params, gradients, rates):
    """AdamW of Loshchilov and Hutter after clipping by the global norm; float64."""
    params = {name: value.astype(np.float64) for name, value in params.items()}
    first = {name: np.zeros_like(value) for name, value in params.items()}
    second = {name: np.zeros_like(value) for name, value in params.items()}
    for count, (grads, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        norm = np.sqrt(sum((grad.astype(np.float64) ** 2).sum() for grad in grads.values()))
        scale = min(1.0, config.clip_norm / norm)
        for name in params:
            grad = grads[name] * scale
            first[name] = config.b1 * first[name] + (1 - config.b1) * grad
            second[name] = config.b2 * second[name] + (1 - config.b2) * grad**2
            direction = first[name] / (1 - config.b1**count)
            direction = direction / (np.sqrt(second[name] / (1 - config.b2**count)) + config.eps)
            decay = 0.0 if name.endswith("bias") else config.weight_decay
            factor = 0.1 if name.startswith("backbone") else 1.0
            params[name] = params[name] - factor * rate * (direction + decay * params[name])
    return params


def random_tree(seed, scale):
    rng = np.random.default_rng(seed)
    return {name: (scale * rng.normal(size=shape)).astype(np.float32) for name, shape in SHAPES.items()}


def run(config, params, gradients, steps_per_epoch=2, num_steps=10):
    schedule = make_schedule(config, steps_per_epoch, num_steps)
    optimizer = make_optimizer(config, schedule)
    params = jax.tree.map(jnp.asarray, params)
    state = optimizer.init(params)
    for grads in gradients:
        updates, state = optimizer.update(jax.tree.map(jnp.asarray, grads), state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_steps_equal_numpy_across_a_schedule_boundary():
    config = OptimizerConfig(learning_rate=0.05, weight_decay=0.1, decay_epochs=(3.0,), no_decay=("bias$",))
    params = random_tree(0, 1.0)
    # The last gradients are below the clipping norm of 0.1, the others far above.
    gradients = [random_tree(step, 1e-3 if step > 6 else 3.0) for step in range(1, 9)]
    rates = [0.05] * 6 + [0.005] * 2  # epoch 3 ends after step 6 of 2 steps an epoch
    expected = reference(config, params, gradients, rates)
    found = run(config, params, gradients)
    for name in SHAPES:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


def test_accumulation_is_one_step_on_the_mean_gradient():
    single = OptimizerConfig(learning_rate=0.05)
    double = OptimizerConfig(learning_rate=0.05, accumulate=2)
    params, halves = random_tree(0, 1.0), [random_tree(step, 1.0) for step in range(1, 9)]
    means = [{name: (halves[i][name] + halves[i + 1][name]) / 2 for name in SHAPES} for i in range(0, len(halves), 2)]
    expected = run(single, params, means, steps_per_epoch=1)
    found = run(double, params, halves, steps_per_epoch=2)
    for name in SHAPES:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-5, atol=1e-6)


def test_schedules():
    step = make_schedule(OptimizerConfig(learning_rate=2e-4, warmup_steps=4), steps_per_epoch=10, num_steps=50)
    np.testing.assert_allclose(
        [step(i) for i in (0, 1, 3, 29, 30, 49)], [5e-5, 1e-4, 2e-4, 2e-4, 2e-5, 2e-5], rtol=1e-5
    )
    accumulated = make_schedule(OptimizerConfig(accumulate=2), steps_per_epoch=10, num_steps=50)
    np.testing.assert_allclose([accumulated(i) for i in (14, 15)], [2e-4, 2e-5], rtol=1e-5)
    cosine = make_schedule(OptimizerConfig(schedule="cosine"), steps_per_epoch=10, num_steps=50)
    np.testing.assert_allclose([cosine(i) for i in (0, 25, 50)], [2e-4, 1e-4, 0.0], atol=1e-9)
    assert make_schedule(OptimizerConfig(schedule="constant"), 10, 50)(49) == pytest.approx(2e-4)


def test_state_holds_the_given_parameters_only():
    optimizer = make_optimizer(OptimizerConfig(), optax.constant_schedule(1.0))
    sizes = [leaf.size for leaf in jax.tree.leaves(optimizer.init(random_tree(0, 1.0))) if leaf.ndim]
    assert sum(sizes) == 2 * sum(int(np.prod(shape)) for shape in SHAPES.values())


def test_mistakes_are_named():
    with pytest.raises(PizaError, match="unknown optimizer key lerning_rate"):
        OptimizerConfig.from_mapping({"lerning_rate": 1.0})
    with pytest.raises(PizaError, match="'backbnoe' matches no parameter"):
        check_rules(OptimizerConfig(rate_factors=(("backbnoe", 0.1),)), SHAPES)
    with pytest.raises(PizaError, match="not a regular expression"):
        check_rules(OptimizerConfig(no_decay=("(",)), SHAPES)
    with pytest.raises(PizaError, match="schedule='linear'"):
        make_schedule(OptimizerConfig(schedule="linear"), 1, 1)
    with pytest.raises(PizaError, match="accumulate=0"):
        make_optimizer(OptimizerConfig(accumulate=0), optax.constant_schedule(1.0))
