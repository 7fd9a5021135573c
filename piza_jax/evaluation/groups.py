"""Outcomes by size of the target, by length of the expression and by number of steps, batch by batch."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np

from piza_jax.errors import PizaError
from piza_jax.evaluation.details import DETAILS, DetailMetrics, Outcomes
from piza_jax.evaluation.metrics import ALL, SIZE_EDGES_PX2, size_names

BY_SIZE, BY_WORDS, BY_STEPS = "target size", "expression length", "zoom steps"

# {way of grouping: {group: metrics}}; ordered, as jit sorts the keys of a plain dict.
DetailGroups = OrderedDict[str, OrderedDict[str, DetailMetrics]]
DetailSummary = dict[str, dict[str, dict[str, float | int | None] | None]]


@dataclass(frozen=True)
class Edges:
    """Where groups end.

    Attributes:
        size_px2: areas at which a size group ends and the next one begins, increasing.
        words: longest expressions of each group but the last, words, increasing.
        most_steps: steps from which on zooms are in one group.
    """

    size_px2: tuple[float, ...] = SIZE_EDGES_PX2
    words: tuple[int, ...] = (15, 25, 35)
    most_steps: int = 5

    def __post_init__(self) -> None:
        size_names(self.size_px2)
        if any(high <= low for low, high in pairwise((0, *self.words))):
            raise PizaError(f"word edges {list(self.words)} must be above 0 and increase")
        if self.most_steps < 1:
            raise PizaError(f"most_steps is {self.most_steps}; it must be at least 1")


DEFAULT_EDGES = Edges()


def word_names(edges: Sequence[int]) -> tuple[str, ...]:
    """Names of the groups of expressions, shortest first: each edge belongs to the group below it."""
    if not edges:
        return ()
    between = [f"{low + 1}..{high} words" for low, high in pairwise(edges)]
    return (f"<= {edges[0]} words", *between, f"> {edges[-1]} words")


def step_names(most_steps: int) -> tuple[str, ...]:
    """Names of the groups of zooms by their number of steps, shortest first."""
    exact = [f"{number} step{'s' if number > 1 else ''}" for number in range(1, most_steps)]
    return (*exact, f">= {most_steps} step{'s' if most_steps > 1 else ''}")


def measure_details(outcomes: Outcomes, edges: Edges = DEFAULT_EDGES) -> DetailGroups:
    """Measure one batch for all samples and for each group; may be jitted with ``edges`` static.

    Raises:
        PizaError: arrays that are not all [B] (ranked_iou: [B, K] with K above 0).
    """
    return _apart(_stacked(_checked(Outcomes(*map(jnp.asarray, outcomes))), edges), edges)


def _checked(outcomes: Outcomes) -> Outcomes:
    rows = outcomes.valid.shape
    wrong = [
        f"{name} {list(array.shape)}"
        for name, array in outcomes._asdict().items()
        if array.ndim != 1 + (name == "ranked_iou") or array.shape[:1] != rows or not all(array.shape[1:])
    ]
    if wrong or outcomes.valid.dtype != bool:
        raise PizaError(
            f"outcomes must be [B], ranked_iou [B, K], valid bool; got {', '.join(wrong) or 'valid '}"
            f"{'' if wrong else outcomes.valid.dtype} beside valid {list(rows)}"
        )
    return outcomes


def _stacked(outcomes: Outcomes, edges: Edges) -> DetailMetrics:
    """Sums of the G groups of all ways of grouping, arrays [G, ...]."""
    size = jnp.searchsorted(jnp.array(edges.size_px2, jnp.float32), outcomes.area_px2, side="right")
    words = jnp.searchsorted(jnp.array(edges.words, jnp.int32), outcomes.words, side="left")
    steps = jnp.minimum(outcomes.steps, edges.most_steps) - 1  # -1, unknown, is in no group
    places = zip(_names(edges).values(), (jnp.zeros_like(steps), size, words, steps), strict=True)
    members = jnp.stack([place == i for names, place in places for i in range(len(names))])
    # All groups in one operation: fourteen copies of it would take ten times as long to compile.
    return jax.vmap(lambda member: _measure(outcomes, member))(members)


def _apart(stacked: DetailMetrics, edges: Edges) -> DetailGroups:
    rows = count()
    return OrderedDict(
        (way, OrderedDict((name, jax.tree.map(itemgetter(next(rows)), stacked)) for name in names))
        for way, names in _names(edges).items()
    )


def _names(edges: Edges) -> dict[str, tuple[str, ...]]:
    return {
        ALL: (ALL,),
        BY_SIZE: size_names(edges.size_px2),
        BY_WORDS: word_names(edges.words),
        BY_STEPS: step_names(edges.most_steps),
    }


def _measure(outcomes: Outcomes, member: jax.Array) -> DetailMetrics:
    chosen = outcomes._replace(valid=outcomes.valid & member)
    return DetailMetrics.single_from_model_output(**chosen._asdict())


# The groups stay together until all batches are added up: hundreds of small arrays would take as long as the work.
_stacked_jit = jax.jit(_stacked, static_argnames="edges")


def merge_details(one: DetailGroups, other: DetailGroups) -> DetailGroups:
    """Add up two batches that were measured with the same edges; PizaError where they were not."""
    if [*map(list, one.values())] != [*map(list, other.values())]:
        raise PizaError("batches measured with different edges cannot be merged; use the same edges for all")
    return OrderedDict(
        (way, OrderedDict((name, group.merge(other[way][name])) for name, group in named.items()))
        for way, named in one.items()
    )


def measure_in_batches(
    outcomes: Outcomes,
    edges: Edges = DEFAULT_EDGES,
    batch_size: int = 8192,
    sharding: jax.sharding.Sharding | None = None,
) -> DetailGroups:
    """Measure any number of samples with one compiled program, the last batch filled up with padding.

    Args:
        outcomes: arrays [N], N above 0.
        edges: of the groups.
        batch_size: samples on the device at once.
        sharding: how a batch lies on the devices; None: on one.

    Returns:
        Sums as NumPy arrays.

    Raises:
        PizaError: no samples, a batch size below 1, or arrays of other shapes.
    """
    outcomes = _checked(Outcomes(*map(np.asarray, outcomes)))
    number = len(outcomes.valid)
    if not number or batch_size < 1:
        raise PizaError(f"there is nothing to measure: {number} samples in batches of {batch_size}")
    total: DetailMetrics | None = None
    for start in range(0, number, batch_size):
        rows = [np.asarray(array)[start : start + batch_size] for array in outcomes]
        batch = Outcomes(*(np.pad(r, [(0, batch_size - len(r))] + [(0, 0)] * (r.ndim - 1)) for r in rows))
        part = jax.device_get(_stacked_jit(jax.device_put(batch, sharding), edges=edges))
        total = part if total is None else total.merge(part)
    assert total is not None
    return _apart(total, edges)


def summarise_details(groups: DetailGroups) -> DetailSummary:
    """Numbers of each group, {way: {group: {name of DETAILS: number}}}, ready for JSON.

    A measure without a sample is None (no steps, scores or ranked boxes were given), and so is an empty group.
    """
    groups = jax.device_get(groups)
    with np.errstate(invalid="ignore"):  # 0 / 0 is how a measure without a sample shows
        return {
            way: {name: _numbers(group.compute()) for name, group in named.items()} for way, named in groups.items()
        }


def _numbers(values: dict[str, np.ndarray]) -> dict[str, float | int | None] | None:
    if not values["count"]:
        return None
    numbers = {name: None if np.isnan(values[name]) else float(values[name]) for name in DETAILS if name != "count"}
    return numbers | {"count": int(values["count"])}
