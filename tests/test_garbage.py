"""The collector of garbage, told to look seldom."""

import gc

import pytest

from piza_jax import garbage


@pytest.fixture
def thresholds():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def collections_of(count: int) -> int:
    """How often the collector starts while so many objects that stay are made."""
    seen = []

    def note(phase, _):
        if phase == "start":
            seen.append(phase)

    gc.callbacks.append(note)
    try:
        kept = [[] for _ in range(count)]
    finally:
        gc.callbacks.remove(note)
    assert len(kept) == count
    return len(seen)


def test_objects_that_stay_are_looked_at_a_hundred_times_less_often(thresholds):
    gc.set_threshold(700, 10, 10)
    by_default = collections_of(250_000)
    garbage.collect_seldom()
    assert 1 <= collections_of(250_000) <= by_default / 100


def test_a_cycle_of_references_is_freed_all_the_same(thresholds):
    garbage.collect_seldom()
    freed = []

    class Node:
        def __del__(self):
            freed.append("node")

    node = Node()
    node.itself = node
    del node
    collections_of(250_000)
    assert freed == ["node"]
