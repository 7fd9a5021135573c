"""Assignment of queries to targets: the cost in plain NumPy, and the optimum that SciPy finds."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from piza_jax.ops.matching import match, matching_cost

QUERIES, TOKENS = 12, 6
match_jit = jax.jit(match)
cost_jit = jax.jit(matching_cost)
seeds = st.integers(0, 2**32 - 1)


def random_cost(seed, targets, scale=1.0):
    """Costs on a coarse grid, so that ties occur."""
    return (np.random.default_rng(seed).integers(-20, 20, (QUERIES, targets)) * scale / 4).astype(np.float32)


def best_total(cost):
    rows, columns = linear_sum_assignment(cost)
    return cost[rows, columns].sum()


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_one_target_gets_the_query_that_the_hungarian_algorithm_gives_it(seed):
    cost = np.random.default_rng(seed).normal(size=(QUERIES, 1)).astype(np.float32)
    index = match_jit(cost, np.array([True]))
    rows, _ = linear_sum_assignment(cost)
    assert index.dtype == np.int32
    np.testing.assert_array_equal(index, rows)


@settings(max_examples=100, deadline=None)
@given(seeds, st.sampled_from([2, 5, QUERIES]), st.sampled_from([1.0, 100.0]))
def test_several_targets_get_different_queries_at_the_lowest_total_cost(seed, targets, scale):
    cost = random_cost(seed, targets, scale)
    index = np.asarray(match_jit(cost, np.ones(targets, bool)))
    assert len(set(index.tolist())) == targets
    assert cost[index, np.arange(targets)].sum() == pytest.approx(best_total(cost), abs=1e-3)


@settings(max_examples=100, deadline=None)
@given(seeds, st.lists(st.booleans(), min_size=5, max_size=5), st.sampled_from([1.0, 1e3, 1e9, np.nan, np.inf]))
def test_padded_targets_take_nothing_from_the_valid_ones(seed, valid, filling):
    cost, valid = random_cost(seed, 5), np.array(valid)
    with np.errstate(invalid="ignore"):  # zero times infinity is as good a garbage as any
        padded = np.where(valid, cost, random_cost(seed + 1, 5) * np.float32(filling))
    index = np.asarray(match_jit(padded, valid))
    assert len(set(index.tolist())) == 5
    assert ((index >= 0) & (index < QUERIES)).all()
    total = cost[index, np.arange(5)][valid].sum()
    assert total == pytest.approx(best_total(cost[:, valid]), abs=1e-3)


def test_padding_does_not_change_which_query_a_valid_target_gets():
    cost = np.random.default_rng(0).normal(size=(QUERIES, 3)).astype(np.float32)  # without ties
    alone = match_jit(cost, np.ones(3, bool))
    wide = np.concatenate([cost, np.full((QUERIES, 2), -50, np.float32)], axis=1)
    together = match_jit(wide, np.array([True, True, True, False, False]))
    np.testing.assert_array_equal(together[:3], alone)


def test_a_batch_is_matched_like_its_samples():
    costs = np.random.default_rng(1).normal(size=(4, QUERIES, 3)).astype(np.float32)
    valid = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 0]], bool)
    together = jax.jit(jax.vmap(match))(costs, valid)
    for cost, row, index in zip(costs, valid, together, strict=True):
        np.testing.assert_array_equal(np.asarray(match_jit(cost, row))[row], np.asarray(index)[row])


def naive_cost(logits, boxes, positive, token_mask, targets, scale_wh):
    """The cost of DETR's matcher with a focal class part, one number at a time."""
    cost = np.zeros((len(boxes), len(targets)))
    for q, box in enumerate(boxes.astype(float)):
        for g, target in enumerate(targets.astype(float)):
            focal = 0.0
            for token in np.flatnonzero(token_mask):
                p = 1 / (1 + np.exp(-float(logits[q, token])))
                focal += -0.25 * (1 - p) ** 2 * np.log(p) if positive[g, token] else -0.75 * p**2 * np.log(1 - p)
            a, b = (
                [(c[0] - c[2] / 2), (c[1] - c[3] / 2), (c[0] + c[2] / 2), (c[1] + c[3] / 2)] * np.tile(scale_wh, 2)
                for c in (box, target)
            )
            overlap = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
            union = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - overlap
            hull = (np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2])).prod()
            giou = overlap / union - (hull - union) / hull
            cost[q, g] = 2 * focal + 5 * np.abs(box - target).sum() - 2 * giou
    return cost


def sample(seed, targets=3):
    rng = np.random.default_rng(seed)
    token_mask = np.arange(TOKENS) < rng.integers(1, TOKENS + 1)
    logits = np.where(token_mask, rng.uniform(-5, 5, size=(QUERIES, TOKENS)), -np.inf)
    boxes = np.concatenate([rng.uniform(0.2, 0.8, (QUERIES, 2)), rng.uniform(0.01, 0.4, (QUERIES, 2))], 1)
    target = np.concatenate([rng.uniform(0.2, 0.8, (targets, 2)), rng.uniform(0.01, 0.4, (targets, 2))], 1)
    positive = rng.integers(0, 2, (targets, TOKENS))
    scale_wh = rng.uniform(100, 4000, 2)
    arrays = (logits, boxes, positive, token_mask, target, scale_wh)
    return tuple(array if array.dtype == bool else array.astype(np.float32) for array in arrays)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_cost_equals_numpy(seed):
    arrays = sample(seed)
    np.testing.assert_allclose(cost_jit(*arrays), naive_cost(*arrays), rtol=1e-4, atol=1e-4)


def test_a_query_on_its_target_with_the_right_words_is_the_cheapest():
    logits, boxes, positive, token_mask, targets, scale_wh = sample(3, targets=2)
    token_mask = np.ones(TOKENS, bool)
    positive = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]], np.float32)
    logits = np.full((QUERIES, TOKENS), -2, np.float32)
    boxes[4], boxes[7], logits[4], logits[7] = targets[0], targets[1], 6 * positive[0] - 3, 6 * positive[1] - 3
    cost = cost_jit(logits, boxes, positive, token_mask, targets, scale_wh)
    np.testing.assert_array_equal(match_jit(cost, np.ones(2, bool)), [4, 7])


def test_what_stands_on_padding_tokens_costs_nothing():
    logits, boxes, positive, _, targets, scale_wh = sample(4)
    token_mask = np.arange(TOKENS) < 3
    noise = np.where(token_mask, positive, 1 - positive)
    one = cost_jit(np.where(token_mask, logits, -np.inf), boxes, positive, token_mask, targets, scale_wh)
    other = cost_jit(np.where(token_mask, logits, 50.0), boxes, noise, token_mask, targets, scale_wh)
    np.testing.assert_array_equal(one, other)
    assert np.isfinite(one).all()
