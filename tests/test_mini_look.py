"""What the first look is said to go to, for searches that are known."""

import types

import pytest

from benchmarks import mini_look
from piza_jax.data.mini_source import MiniSource
from piza_jax.data.world.pictures import make_picture
from piza_jax.evaluation.evaluate import Prediction
from piza_jax.results import Grounding, Step

SCENES = 3


def search(source, index, first, end):
    """A prediction whose first look gave one box and whose end is another, for the record of that index."""
    _, record = source.records[index]
    steps = (Step((0.0, 0.0, 2048.0, 1536.0), first, 0.5, 0.0, 0.0), Step(first, end, 0.5, 1.0, 1.0))
    return Prediction(
        index, record.id, record.image, record.box_xyxy, float(end == record.box_xyxy), Grounding("", end, 0.5, steps)
    )


@pytest.fixture
def answer(monkeypatch):
    """Have a model that answers each record by a function (scene, target's box) -> first box and last box."""

    def use(boxes):
        def predictions(grounder, source, records):
            del grounder, records
            for index, (number, record) in enumerate(source.records):
                scene = make_picture(source.split, number).scene
                yield search(source, index, *boxes(scene, record.box_xyxy))

        monkeypatch.setattr(mini_look, "predictions", predictions)
        monkeypatch.setattr(mini_look.piza_jax, "load", lambda *_, **__: types.SimpleNamespace())
        return [line.split(" | ") for line in mini_look.table("model", "test_a", SCENES, 0, 0).splitlines()[2:]]

    return use


def widened(box):
    return box[0] - 100, box[1] - 100, box[2] + 100, box[3] + 100


def test_a_search_that_finds_all(answer):
    rows = answer(lambda scene, target: (widened(target), target))
    assert [row[2:] for row in rows] == [["100", "100", "100", "100 |"]] * len(rows)
    total = len(MiniSource("test_a", SCENES))
    assert int(rows[0][1]) == total == sum(int(row[1]) for row in rows[1:])


def test_a_search_that_looks_at_other_kinds(answer):
    def elsewhere(scene, target):
        kind = next(thing.kind for thing in scene.things if tuple(map(float, thing.box)) == target)
        box = next(thing.box for thing in scene.things if thing.kind != kind and not thing.large)
        return tuple(map(float, box)), target

    rows = answer(elsewhere)
    assert rows[0][2:] == ["0", "0", "0", "100 |"]


def test_a_box_beside_the_target_that_is_nearest_to_it_does_not_hold_it(answer):
    rows = answer(lambda scene, target: ((target[0] - 3, target[1] - 3, target[0] + 1, target[1] + 1), target))
    assert rows[0][4:] == ["0", "100 |"]
