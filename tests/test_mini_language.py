"""SOREC-mini's sentences: each names one thing of its scene and no other, in few words that are used regularly."""

import dataclasses
import re
from collections import Counter

import numpy as np
import pytest

from piza_jax.data.world.expressions import Speaker
from piza_jax.data.world.kinds import SMALL
from piza_jax.data.world.layout import make_scene
from piza_jax.data.world.meaning import Meaning, Ref, SceneIndex
from piza_jax.data.world.pictures import make_picture
from piza_jax.data.world.scene import Scene, Thing
from piza_jax.data.world.splits import NORMAL_SPLITS, SMALL_SPLITS
from tests import mini_checker

SCENES = {"train_s": 100, "train_l": 400, "val": 150, "test_a": 150, "test_b": 200}


@pytest.fixture(scope="module")
def pictures() -> list:
    """The first scenes of each split, 1,000 in all, and 240 of the normal variant."""
    small = [make_picture(SMALL_SPLITS[split], number) for split, count in SCENES.items() for number in range(count)]
    return small + [make_picture(split, number) for split in NORMAL_SPLITS.values() for number in range(120)]


def test_each_sentence_read_back_fits_its_target_alone(pictures):
    assert len(pictures) == 1240
    checked = 0
    for picture in pictures:
        for expression in picture.expressions:
            said = mini_checker.parse(expression.text)
            assert mini_checker.fitting(said, picture.scene.things) == [expression.target], expression.text
            checked += 1
    assert checked > 10_000


def test_each_sentence_says_its_meaning(pictures):
    for picture in pictures[::7]:
        for expression in picture.expressions:
            said, meaning = mini_checker.parse(expression.text), expression.meaning
            assert said["target"] == dataclasses.asdict(meaning.target)
            assert [{**ref, "order": None} for ref in map(dataclasses.asdict, meaning.anchors)] == said["anchors"]
            assert (said["zone"], said["order"]) == (meaning.zone, meaning.order)
            if meaning.neighbour is None:
                assert said["neighbour"] is None
            else:
                side, ref = said["neighbour"]
                assert (side, ref) == (
                    meaning.neighbour[0],
                    {**dataclasses.asdict(meaning.neighbour[1]), "order": None},
                )


def test_sentences_have_10_to_30_words_of_a_small_vocabulary(pictures):
    words: Counter[str] = Counter()
    for picture in pictures:
        for expression in picture.expressions:
            found = re.findall(r"[a-z]+", expression.text.lower())
            assert 10 <= len(found) <= 30, expression.text
            assert len(found) == len(expression.text.split())
            words.update(found)
    assert 110 <= len(words) <= 250
    assert not re.search(r"\ba [aeiou]\w+|\ban [^aeiou]", " ".join(e.text for p in pictures for e in p.expressions))
    small = [e for p in pictures[:1000] for e in p.expressions]
    assert all(e.meaning.anchors for e in small)  # a large thing leads to each small one
    assert len({e.text for e in small}) > 0.8 * len(small)


def test_a_twin_in_the_same_place_makes_a_sentence_ambiguous(pictures):
    ambiguous = 0
    for picture in pictures[:40]:
        for expression in picture.expressions:
            things = picture.scene.things
            target = things[expression.target]
            x0, y0, x1, y1 = target.box
            twin = dataclasses.replace(target, box=(x0, y0 + 1, x1, y1 + 1))
            scene = dataclasses.replace(picture.scene, things=(*things, twin))
            assert SceneIndex(scene).referent(expression.meaning) is None, expression.text
            if expression.meaning.order is None:
                said = mini_checker.parse(expression.text)
                assert mini_checker.fitting(said, scene.things) == [expression.target, len(things)]
                ambiguous += 1
    assert ambiguous > 200


def _scene(*things: Thing) -> SceneIndex:
    street = make_scene(0).street
    return SceneIndex(Scene(0, street, things))


def test_meanings_are_judged_strictly_for_the_target_and_loosely_for_all_others():
    van = Thing("van", "blue", None, (800, 1000, 1000, 1100), large=True)
    near = Thing("cone", "red", "plain", (740, 1060, 770, 1100))
    left = Meaning(Ref("cone", "red"), "left", (Ref("van", "blue"),))
    assert _scene(van, near).referent(left) == 1
    doubtful = Thing("cone", "red", "plain", (450, 1060, 480, 1100))  # 320 px away: some would call it left of the van
    assert _scene(van, near, doubtful).referent(left) is None
    assert _scene(van, doubtful).referent(left) is None
    away = Thing("cone", "red", "plain", (300, 1060, 330, 1100))
    assert _scene(van, near, away).referent(left) == 1
    second_van = Thing("van", "blue", None, (1400, 1000, 1600, 1100), large=True)
    assert _scene(van, near, second_van).referent(left) is None  # which van?
    striped = Thing("cone", "red", "striped", (690, 1060, 720, 1100))
    assert _scene(van, near, striped).referent(left) is None
    assert _scene(van, near, striped).referent(dataclasses.replace(left, target=Ref("cone", "red", "striped"))) == 2
    assert _scene(van, near, striped).referent(dataclasses.replace(left, order="leftmost")) == 2
    assert _scene(van, near, striped).referent(dataclasses.replace(left, order="rightmost")) == 1
    assert _scene(van, near).referent(dataclasses.replace(left, order="rightmost")) is None  # of one, there is no order
    beside = dataclasses.replace(left, neighbour=("left", Ref("cone", "red", "plain")))
    assert _scene(van, near, striped).referent(beside) == 2


def test_poles_are_counted_from_the_left_whatever_their_depth():
    poles = [
        Thing("pole", "", None, (x, y - 400, x + 40, y), large=True) for x, y in ((1500, 900), (200, 1200), (900, 1000))
    ]
    signs = [Thing("sign", "red", "round", (p.box[0], p.box[1] + 50, p.box[2], p.box[1] + 90)) for p in poles]
    index = _scene(*poles, *signs)
    for ordinal, target in ((1, 4), (2, 5), (3, 3), (-1, 3)):
        assert index.referent(Meaning(Ref("sign", "red"), "pole", (Ref("pole", ordinal=ordinal),))) == target


def test_a_speaker_says_nothing_of_a_thing_that_cannot_be_singled_out():
    van = Thing("van", "blue", None, (800, 1000, 1000, 1100), large=True)
    twins = [Thing("chair", "red", None, (700, 1060 + 2 * n, 730, 1100 + 2 * n)) for n in range(2)]
    speaker = Speaker(_scene(van, *twins).scene, np.random.default_rng(0))
    assert speaker.small(1) is None
    assert speaker.small(2) is None


def test_every_kind_and_detail_is_spoken_of(pictures):
    spoken = {(e.meaning.target.kind, e.meaning.target.detail) for p in pictures[:1000] for e in p.expressions}
    for name, kind in SMALL.items():
        for detail in kind.details:
            assert (name, detail) in spoken or detail == "bare"
    zones = Counter(e.meaning.zone for p in pictures[:1000] for e in p.expressions)
    assert set(zones) == {"left", "right", "between", "wall", "front", "pole", "foot"}
    assert min(zones.values()) > 100, zones
