"""SOREC-mini's scenes and pictures: the same everywhere, tight boxes, look-alikes, and no answer without looking."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from piza_jax.data.world.groups import make_palette
from piza_jax.data.world.kinds import BUILDINGS, COLOURS, GROUND_KINDS, MOUNTED_KINDS, SMALL, VEHICLES, WALLS
from piza_jax.data.world.layout import make_scene
from piza_jax.data.world.pictures import NORMAL_SIDES, make_picture
from piza_jax.data.world.render import draw_thing, place, render
from piza_jax.data.world.scene import HEIGHT, WIDTH, Thing
from piza_jax.data.world.splits import NORMAL_SPLITS, SEEDS_A_SPLIT, SMALL_SPLITS, find_split, scaled_scenes
from piza_jax.errors import PizaError

ALL_SPLITS = (*SMALL_SPLITS.values(), *NORMAL_SPLITS.values())


@pytest.fixture(scope="module")
def pictures() -> dict[str, list]:
    """The first 120 scenes of each split, not drawn."""
    return {name: [make_picture(split, number) for number in range(120)] for name, split in SMALL_SPLITS.items()}


def _digest(picture) -> str:
    """Of all that is said of a picture and of its pixels."""
    said = json.dumps([asdict(picture.scene), [asdict(record) for record in picture.records]], sort_keys=True)
    return hashlib.sha256(said.encode() + picture.draw().tobytes() + picture.jpeg()).hexdigest()


def test_other_processes_draw_the_same_whatever_their_hash_seed():
    code = (
        "from piza_jax.data.world.splits import SMALL_SPLITS, NORMAL_SPLITS\n"
        "from piza_jax.data.world.pictures import make_picture\n"
        "from tests.test_mini_world import _digest\n"
        "for split in (SMALL_SPLITS['test_b'], NORMAL_SPLITS['val']):\n"
        "    print(*[_digest(make_picture(split, number)) for number in (1, 0)])\n"
    )
    splits = SMALL_SPLITS["test_b"], NORMAL_SPLITS["val"]
    here = [_digest(make_picture(split, number)) for split in splits for number in (1, 0)]
    for seed in ("0", "123"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.split() == here
    assert len(set(here)) == 4


def test_scenes_stay_what_they_were():
    # On any machine; a change of the world shows here and needs a new version of the data set.
    scenes = [make_scene(7), make_scene(8, rare=True)]
    said = [record.expression for record in make_picture(SMALL_SPLITS["train_s"], 7).records]
    text = json.dumps([[asdict(scene) for scene in scenes], said], sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "97af807e1c4b434f"


def test_no_scene_is_in_two_splits():
    ranges = sorted((split.seed(0), split.seed(SEEDS_A_SPLIT - 1)) for split in ALL_SPLITS)
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(ranges))
    scenes = [make_picture(split, number).scene for split in ALL_SPLITS for number in range(40)]
    assert len({scene.seed for scene in scenes}) == len(scenes)
    assert len({scene.things for scene in scenes}) == len(scenes)


def test_splits_have_the_proportions_of_sorec():
    scenes = {name: split.scenes for name, split in SMALL_SPLITS.items()}
    assert scenes["train_l"] == 6 * scenes["train_s"]
    assert scenes["test_b"] > scenes["test_a"] == scenes["val"] == scenes["train_s"]
    assert scaled_scenes(SMALL_SPLITS, 0.01) == {"train_s": 3, "train_l": 18, "val": 3, "test_a": 3, "test_b": 5}
    assert min(scaled_scenes(NORMAL_SPLITS, 1e-9).values()) == 1


def test_targets_are_as_small_as_those_of_sorec(pictures):
    parts = []
    for picture in (picture for split in pictures.values() for picture in split):
        assert picture.size == (WIDTH, HEIGHT)
        for record in picture.records:
            x0, y0, x1, y1 = record.box_xyxy
            assert 0 <= x0 < x1 <= WIDTH
            assert 0 <= y0 < y1 <= HEIGHT
            assert min(x1 - x0, y1 - y0) >= 14
            parts.append((x1 - x0) * (y1 - y0) / (WIDTH * HEIGHT))
    assert min(parts) >= 0.0002
    assert max(parts) <= 0.001
    assert 0.0004 <= np.median(parts) <= 0.0006  # 0.05%


def test_normal_targets_are_at_least_twice_as_large_as_small_ones_in_their_picture():
    sides, wide = [], 0
    for split in NORMAL_SPLITS.values():
        for picture in (make_picture(split, number) for number in range(150)):
            assert picture.records
            width, height = picture.size
            wide += 1000 < picture.window[2] - picture.window[0] < WIDTH
            for record in picture.records:
                x0, y0, x1, y1 = record.box_xyxy
                assert 0 <= x0 < x1 <= width
                assert 0 <= y0 < y1 <= height
                sides.append(((x1 - x0) * (y1 - y0) / (width * height)) ** 0.5)
    assert NORMAL_SIDES[0] <= min(sides)
    assert max(sides) <= NORMAL_SIDES[1]
    assert max(sides) > 0.2
    assert np.median(sides) > 0.06
    assert wide < 150


def _extent(thing: Thing, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The box of the pixels that a thing changes on a plain ground."""
    ground = (255, 0, 255)
    image = Image.new("RGB", (box[2] + 20, box[3] + 20), ground)
    draw_thing(image, thing, box)
    changed = np.abs(np.asarray(image, np.int16) - ground).max(axis=2) > 24
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@pytest.mark.parametrize("area", [780, 1500, 2900, 12_000])
def test_every_small_thing_fills_its_box_to_the_pixel(area):
    for name, kind in SMALL.items():
        height = round((area / kind.aspect) ** 0.5)
        box = (11, 13, 11 + round(kind.aspect * height), 13 + height)
        for detail in kind.details or (None,):
            for colour in kind.colours:
                for flip in (False, True):
                    assert _extent(Thing(name, colour, detail, box, flip=flip), box) == box, (name, colour, detail)


def test_every_large_thing_fills_its_box_to_the_pixel():
    things = [
        Thing(kind, colour, None, (9, 5, 209, 85), True, "side", flip)
        for kind in VEHICLES
        for colour in COLOURS
        for flip in (False, True)
    ]
    things += [Thing(kind, "green", None, (9, 5, 109, 115), True, "rear") for kind in VEHICLES]
    things += [Thing("kiosk", colour, None, (9, 5, 149, 145), True) for colour in COLOURS]
    things += [
        Thing(kind, wall, None, (9, 5, 289, 405), True, band=(400, 600), style=style)
        for kind in ("house", "tower")
        for wall in WALLS
        for style in range(8)
    ]
    things += [Thing("pole", "", None, (9, 5, 59, 405), True)]
    for thing in things:
        assert _extent(thing, thing.box) == thing.box, thing


def test_drawn_colours_are_far_apart():
    for named in (COLOURS, WALLS):
        values = np.array(list(named.values()), int)
        apart = np.abs(values[:, None] - values[None]).sum(-1) + 1000 * np.eye(len(values), dtype=int)
        assert apart.min() > (100 if named is COLOURS else 80), named


def test_nothing_covers_a_small_thing(pictures):
    for picture in [pictures[split][number] for split in pictures for number in range(40)]:
        things = picture.scene.things
        small = [thing for thing in things if not thing.large]
        solid = [thing for thing in things if thing.kind in (*VEHICLES, "kiosk")] + small
        for thing in small:
            for other in solid:
                apart = (
                    thing.box[0] >= other.box[2]
                    or other.box[0] >= thing.box[2]
                    or thing.box[1] >= other.box[3]
                    or other.box[1] >= thing.box[3]
                )
                assert apart or thing is other, (thing, other)


def test_a_picture_shows_its_target_where_the_box_says():
    for split, number in ((SMALL_SPLITS["train_l"], 3), (NORMAL_SPLITS["train"], 3), (NORMAL_SPLITS["train"], 4)):
        picture = make_picture(split, number)
        whole = np.asarray(picture.draw(), np.int16)
        for expression, record in zip(picture.expressions, picture.records, strict=True):
            target = picture.scene.things[expression.target]
            box = place(target.box, picture.window, picture.size)
            assert tuple(map(int, record.box_xyxy)) == box
            if target.kind in ("pole", "light"):  # not to be had in any colour
                continue
            names = WALLS if target.kind in BUILDINGS else COLOURS
            repainted = replace(target, colour=next(name for name in names if name != target.colour))
            things = tuple(repainted if thing is target else thing for thing in picture.scene.things)
            other = render(replace(picture.scene, things=things), picture.window, picture.size)
            changed = (np.asarray(other, np.int16) != whole).any(axis=2)
            rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
            assert len(rows), record
            assert box[0] <= columns[0] <= columns[-1] < box[2], record
            assert box[1] <= rows[0] <= rows[-1] < box[3], record


def _differences(thing: Thing, other: Thing) -> int:
    return sum(getattr(thing, name) != getattr(other, name) for name in ("kind", "colour", "detail"))


def test_every_target_has_look_alikes_in_its_scene(pictures):
    same, near, kin, candidates = [], [], [], []
    for picture in (picture for split in pictures.values() for picture in split):
        small = [thing for thing in picture.scene.things if not thing.large]
        candidates.append(len(small))
        for expression in picture.expressions:
            target = picture.scene.things[expression.target]
            apart = [_differences(target, other) for other in small if other is not target]
            assert min(apart) <= 1, expression
            same.append(apart.count(0))
            near.append(apart.count(1))
            kin.append(sum(other.kind == target.kind for other in small) - 1)
    assert min(candidates) >= 20
    assert np.mean(candidates) > 45
    assert 0.4 < np.mean(np.array(same) > 0) < 0.6  # told from these by the place alone, the others by their look too
    assert np.mean(same) > 1
    assert np.mean(near) > 4
    assert np.mean(kin) > 5


def _spread(things, cells: int = 4) -> np.ndarray:
    """Part of the things in each cell of a grid over the scene."""
    counts = np.zeros((cells, cells))
    for thing in things:
        x, y = thing.centre
        counts[int(y * cells / HEIGHT), int(x * cells / WIDTH)] += 1
    return counts / counts.sum()


def test_targets_are_drawn_evenly_from_all_that_stands_there(pictures):
    # Knowing which things are drawn (but no sentence), or where things stand, tells next to nothing of the target.
    chosen, present = [], []
    for picture in pictures["train_l"] + pictures["train_s"] + pictures["val"]:
        present += [thing for thing in picture.scene.things if not thing.large]
        chosen += [picture.scene.things[expression.target] for expression in picture.expressions]
    assert np.abs(_spread(chosen) - _spread(present)).sum() / 2 < 0.1
    kinds = Counter(thing.kind for thing in chosen), Counter(thing.kind for thing in present)
    assert sum(abs(kinds[0][k] / len(chosen) - kinds[1][k] / len(present)) for k in SMALL) / 2 < 0.1
    across = np.histogram([thing.centre[0] for thing in chosen], 8, (0, WIDTH))[0] / len(chosen)
    assert across.min() > 0.06  # of 1/8 each, were they even
    assert across.max() < 0.19


def test_words_alone_do_not_tell_the_place(pictures):
    # The best guess from what is said of the place: the middle of all training targets of which the same is said.
    def said(expression):
        anchors = [(ref.kind, ref.half, ref.depth, ref.ordinal) for ref in expression.meaning.anchors]
        return expression.meaning.zone, expression.meaning.order, *anchors

    known: dict[tuple, list[tuple[float, float]]] = {}
    for picture in pictures["train_s"] + pictures["train_l"]:
        for expression in picture.expressions:
            place_of = picture.scene.things[expression.target].centre
            known.setdefault(said(expression), []).append(place_of)
    off = []
    for picture in pictures["val"]:
        for expression in picture.expressions:
            guess = np.median(known.get(said(expression), [(WIDTH / 2, HEIGHT / 2)]), axis=0)
            off.append(np.abs(guess - picture.scene.things[expression.target].centre).max())
    assert np.mean(np.array(off) < 12) < 0.02  # on the target
    assert np.mean(np.array(off) < 185) < 0.4  # in the same zoom crop, about 370 px wide


def test_rare_kinds_are_the_targets_of_test_b_and_seldom_seen_in_training(pictures):
    rare = {
        split: np.mean([SMALL[p.scene.things[e.target].kind].rare for p in found for e in p.expressions])
        for split, found in pictures.items()
    }
    assert rare["test_b"] == 1
    assert rare["test_a"] == 0
    for split in ("train_s", "train_l", "val"):
        assert 0.01 < rare[split] < 0.1
    kinds = {p.scene.things[e.target].kind for p in pictures["train_l"] for e in p.expressions}
    assert kinds == set(SMALL)  # each is known from training all the same


def test_palettes_give_groups_of_their_kind():
    rng = np.random.default_rng(0)
    for number in range(200):
        palette = make_palette(rng, rare=number % 2 == 1)
        for mounted, kinds in ((False, GROUND_KINDS), (True, MOUNTED_KINDS)):
            for kind, colour, detail in palette.group(rng, 4, mounted):
                assert kind in kinds
                assert colour in SMALL[kind].colours
                assert detail in SMALL[kind].details or (detail is None and not SMALL[kind].details)


def test_wrong_names_and_sizes_are_refused():
    with pytest.raises(PizaError, match="SOREC-mini has no split 'test', only train_s, train_l, val, test_a, test_b"):
        find_split("test")
    with pytest.raises(PizaError, match="normal variant has no split 'test_a', only train, val"):
        find_split("test_a", normal=True)
    with pytest.raises(PizaError, match="scale is 0; it must be a number above 0"):
        scaled_scenes(SMALL_SPLITS, 0)
    with pytest.raises(PizaError, match="scale is 1000.0: more than 1000000 scenes"):
        scaled_scenes(SMALL_SPLITS, 1000.0)
    with pytest.raises(PizaError, match="split val has scenes 0..999999, not -1"):
        SMALL_SPLITS["val"].seed(-1)
