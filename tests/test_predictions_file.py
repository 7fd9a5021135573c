"""Predictions of every form score alike; what cannot be scored fairly is refused by name."""

import json
import re

import numpy as np
import pytest

from piza_jax.errors import PizaError
from piza_jax.evaluation import save, scoring
from piza_jax.evaluation.score_file import answers_of_file

COUNT = 24


@pytest.fixture
def world(tmp_path):
    """Annotations of 24 records, and boxes that are near their targets: xyxy [24, 4]."""
    rng = np.random.default_rng(0)
    corner, size = rng.integers(100, 2000, (COUNT, 2)), rng.integers(20, 40, (COUNT, 2))
    records = [
        {"image": "a.jpg", "bbox": [*map(int, corner[i]), *map(int, size[i])], "ref": "word " * (i + 5), "id": 100 + i}
        for i in range(COUNT)
    ]
    (tmp_path / "val.json").write_text(json.dumps(records))
    low = corner + rng.integers(-6, 7, (COUNT, 2))
    return tmp_path, np.concatenate([low, low + size], axis=1).astype(float), records


def write(world, items, lines=True, name="found.json"):
    path = world[0] / name
    path.write_text("\n".join(map(json.dumps, items)) if lines else json.dumps(items))
    return path


def xyxy(world, **more):
    return [{"id": 100 + i, "box": list(box)} | more for i, box in enumerate(world[1])]


def coco(world, score=0.5):
    return [
        {"image_id": 100 + i, "category_id": 1, "bbox": [a, b, c - a, d - b], "score": score}
        for i, (a, b, c, d) in enumerate(world[1].tolist())
    ]


def score(world, path, box_format="auto"):
    (pairs,) = answers_of_file(path, [world[0] / "val.json"], box_format).values()
    return scoring.score([answer for _, answer in pairs])


def refusal(world, items, box_format="auto", lines=True):
    with pytest.raises(PizaError) as caught:
        score(world, write(world, items, lines), box_format)
    return str(caught.value)


def naive_iou(world):
    overlaps = []
    for box, record in zip(world[1], world[2], strict=True):
        x, y, w, h = record["bbox"]
        both = max(0, min(box[2], x + w) - max(box[0], x)) * max(0, min(box[3], y + h) - max(box[1], y))
        overlaps.append(both / ((box[2] - box[0]) * (box[3] - box[1]) + w * h - both))
    return np.array(overlaps)


def test_every_form_gives_the_same_numbers(world):
    lines = score(world, write(world, xyxy(world, score=0.5)))
    numbers = lines.details["all"]["all"]
    assert numbers["mean_iou"] == pytest.approx(naive_iou(world).mean(), abs=1e-6)
    assert numbers["Acc50"] == pytest.approx(np.mean(naive_iou(world) >= 0.5))
    assert 0.2 < numbers["mean_iou"] < 0.9
    for unknown in ("top1", "top5", "mean_steps", "stop_accuracy"):
        assert numbers[unknown] is None
    assert lines.failures is None
    assert lines.without_steps == np.count_nonzero(naive_iou(world) < 0.5) > 0
    shuffled = list(reversed(xyxy(world, score=0.5)))
    as_xywh = [{"id": one["image_id"], "box": one["bbox"], "score": 0.5} for one in coco(world)]
    own = {"metrics": {}, "predictions": {"val": xyxy(world, score=0.5), "other": xyxy(world)}}
    assert score(world, write(world, shuffled, lines=False)) == lines
    assert score(world, write(world, coco(world), lines=False)) == lines
    assert score(world, write(world, coco(world))) == lines
    assert score(world, write(world, as_xywh), "xywh") == lines
    assert score(world, write(world, own, lines=False)) == lines
    (world[0] / "indented.json").write_text(json.dumps(own, indent=1))
    assert score(world, world[0] / "indented.json") == lines


def test_top_k_from_several_coco_boxes_and_from_a_list(world):
    far = [5000.0, 5000.0, 20.0, 20.0]
    better = [one | {"bbox": far, "score": 0.9} for one in coco(world)]  # the best score of each is wrong
    ranked = score(world, write(world, [*coco(world), *better], lines=False)).details["all"]["all"]
    share = np.mean(naive_iou(world) >= 0.5)
    assert (ranked["Acc50"], ranked["top1"]) == (0, 0)
    assert ranked["top5"] == ranked["top10"] == pytest.approx(share)
    far_xyxy = [5000.0, 5000.0, 5020.0, 5020.0]
    listed = [
        {"id": one["id"], "boxes": [one["box"], *[far_xyxy] * 5], "scores": [0.1, 0.9, 0.8, 0.7, 0.6, 0.5]}
        for one in xyxy(world)
    ]
    ranked = score(world, write(world, listed)).details["all"]["all"]
    assert ranked["top1"] == ranked["top5"] == 0
    assert ranked["top10"] == pytest.approx(share)
    unscored = [{"id": one["id"], "box": far_xyxy, "boxes": [far_xyxy, one["box"]]} for one in xyxy(world)]
    ranked = score(world, write(world, unscored)).details["all"]["all"]
    assert (ranked["top1"], ranked["top5"]) == (0, pytest.approx(share))


def test_number_of_steps_and_scores_that_are_no_chances(world):
    numbers = score(world, write(world, xyxy(world, steps=3, score=7.5))).details
    assert numbers["all"]["all"]["mean_steps"] == 3
    assert numbers["zoom steps"]["3 steps"]["count"] == COUNT
    assert numbers["all"]["all"]["calibration_error"] is None


def test_several_annotation_files_share_one_file_of_predictions(world):
    other = [record | {"id": record["id"] + 1000} for record in world[2]]
    (world[0] / "testA.json").write_text(json.dumps(other))
    paths = [world[0] / "val.json", world[0] / "testA.json"]
    both = [*xyxy(world), *({**one, "id": one["id"] + 1000} for one in xyxy(world))]
    splits = answers_of_file(write(world, both), paths)
    assert [len(pairs) for pairs in splits.values()] == [COUNT, COUNT]
    named = [one | {"split": split} for split in ("val", "testA") for one in xyxy(world)]
    (world[0] / "testA.json").write_text(json.dumps(world[2]))
    assert list(answers_of_file(write(world, named), paths)) == ["val", "testA"]
    with pytest.raises(PizaError, match="one annotation file at a time"):
        answers_of_file(write(world, xyxy(world)), paths)
    with pytest.raises(PizaError, match="two annotation files are called val"):
        answers_of_file(write(world, xyxy(world)), [paths[0], paths[0]])


def test_boxes_of_the_other_format_are_named_and_never_swapped(world):
    as_xywh = [{"id": one["image_id"], "box": one["bbox"]} for one in coco(world)]
    message = refusal(world, as_xywh)
    assert "read as xyxy but look like xywh" in message
    assert f"{COUNT} of {COUNT} have x1 below x0" in message
    assert "--format=xywh" in message
    assert "look like xywh" in refusal(world, as_xywh, "xyxy")
    message = refusal(world, xyxy(world), "xywh")
    assert "read as xywh but look like xyxy: 0 of" in message
    assert f"{naive_iou(world).mean():.3f} as xyxy" in message
    named_bbox = [{"id": one["id"], "bbox": one["box"]} for one in xyxy(world)]
    assert "--format=xyxy" in refusal(world, named_bbox)
    # Bad answers in the right format are bad answers.
    wrong = [one | {"box": [5.0, 5.0, 30.0, 30.0]} for one in xyxy(world)]
    assert score(world, write(world, wrong)).details["all"]["all"]["mean_iou"] == 0
    one_flipped = xyxy(world)
    one_flipped[3]["box"] = [50, 60, 40, 90]
    message = refusal(world, one_flipped)
    assert "line 4 of" in message
    assert "(id 103)" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda items: items.pop(2), r"no prediction for 1 of the 24 records of val: id 102"),
        (lambda items: items.append({"id": 7, "box": [1, 1, 2, 2]}), r"1 predictions of .* no record .*: id 7;"),
        (lambda items: items.append(items[0]), r"line 1 of .* and line 25 of .* have the same id 100"),
        (lambda items: items[1].update(box=[1, float("nan"), 2, 2]), r"line 2 of .*\(id 101\) has the box \[1, nan"),
        (lambda items: items[1].update(box=[1, 2, float("inf"), 2]), "four finite numbers"),
        (lambda items: items[1].update(box=[1, 2, 3, -float("inf")]), "four finite numbers"),
        (lambda items: items[1].update(box=[1, 2, 3, 10**400]), "four finite numbers"),
        (lambda items: items[1].update(box=[1, 2, 3, 2e9]), "four finite numbers"),
        (lambda items: items[1].update(box=[1, 2, 3]), "four finite numbers"),
        (lambda items: items[1].update(box="1234"), "four finite numbers"),
        (lambda items: items[1].update(box=[True, 2, 3, 4]), "four finite numbers"),
        (lambda items: items[1].update(box=None), "four finite numbers"),
        (lambda items: items[1].pop("box"), r"line 2 .* has no box"),
        (lambda items: items[1].update(id="101"), "id '101', which is no whole number"),
        (lambda items: items[1].update(score="high"), "score 'high'"),
        (lambda items: items[1].update(score=float("nan")), "score nan"),
        (lambda items: items[1].update(boxes=[]), "no list of at least one box"),
        (lambda items: items[1].update(boxes=[[1, 1, 2, 2], [1, 1, float("nan"), 2]]), "four finite numbers"),
        (lambda items: items[1].update(boxes=[[1, 1, 2, 2]], scores=[0.5, 0.4]), "one score for each box"),
        (lambda items: items[1].update(boxes=[[1, 1, 2, 2]], scores=[float("nan")]), "score nan"),
        (lambda items: items[1].update(steps=0), "steps 0"),
        (lambda items: items[1].update(steps=[{"crop": [0, 0, 9, 9]}]), "step 0 of line 2"),
        (
            lambda items: items[1].update(steps=[{"crop": [0, 0, 9, 9], "box": [0, 0, float("nan"), 9]}]),
            "step 0 of line 2",
        ),
        (lambda items: items[1].update(steps=[[1, 2]]), r"steps \[\[1, 2\]\]"),
        (lambda items: items.__setitem__(4, [1, 2]), "line 5 of .* is no object"),
        (lambda items: items.clear(), "holds no prediction"),
    ],
)
def test_bad_entries(world, change, words):
    items = xyxy(world)
    change(items)
    assert re.search(words, refusal(world, items))


def test_bad_coco_and_bad_files(world):
    twice = [*coco(world), coco(world, score=None)[0]]
    assert "not both a score" in refusal(world, twice, lines=False)
    found, val = world[0] / "found.json", world[0] / "val.json"
    lines = list(map(json.dumps, xyxy(world)))
    for bad_line, text in ((3, "\n".join([*lines[:2], lines[2][:-3], *lines[3:]])), (1, lines[0][:-1])):
        found.write_text(text)
        with pytest.raises(PizaError, match=f"no JSON at line {bad_line} column"):
            answers_of_file(found, [val])
    found.write_text(json.dumps(xyxy(world), indent=1).replace("105,", "105", 1))
    with pytest.raises(PizaError, match=r"no JSON at line \d\d column"):
        answers_of_file(found, [val])
    for text, words in (
        ("{}\n{}", "no whole number"),
        ("3", "neither JSON lines"),
        ('{"predictions": [1]}', "neither JSON lines"),
        ("[" * 100_000, "nested too deeply"),
        ("", "holds no prediction"),
    ):
        found.write_text(text)
        with pytest.raises(PizaError, match=words):
            answers_of_file(found, [val])
    found.write_bytes(b"\xff\xfe{}")
    with pytest.raises(PizaError, match="cannot be read"):
        answers_of_file(found, [val])
    with pytest.raises(PizaError, match="nowhere.jsonl is missing"):
        answers_of_file(world[0] / "nowhere.jsonl", [val])
    with pytest.raises(PizaError, match="'yxyx' is unknown"):
        answers_of_file(found, [val], "yxyx")
    val.write_text("[]")
    with pytest.raises(PizaError, match=r"val.json holds no record"):
        answers_of_file(write(world, xyxy(world)), [val])


def test_what_is_written_reads_back(world):
    step = {"score": 0.5, "progress": 0.0, "stop_probability": 0.5}
    around = [0.0, 0.0, 3000.0, 3000.0]
    zooms = [
        one
        | {
            "score": 0.5,
            "steps": [{**step, "crop": around, "box": around}, {**step, "crop": around, "box": one["box"]}],
        }
        for one in xyxy(world)
    ]
    first = write(world, zooms)
    pairs = answers_of_file(first, [world[0] / "val.json"])["val"]
    expected = score(world, first)
    assert sum(expected.failures.values()) == np.count_nonzero(naive_iou(world) < 0.5)
    assert expected.details["all"]["all"]["stop_accuracy"] < 1
    listed = {"val": [save.entry(record.id, answer) for record, answer in pairs]}
    save.save_json_lines(listed, world[0] / "again.jsonl")
    save.save_json({"predictions": listed}, world[0] / "again.json")
    save.save_coco(listed["val"], world[0] / "coco.json")
    assert score(world, world[0] / "again.jsonl") == expected
    assert score(world, world[0] / "again.json") == expected
    as_coco = score(world, world[0] / "coco.json")
    assert as_coco.details["all"]["all"]["mean_iou"] == expected.details["all"]["all"]["mean_iou"]
    assert as_coco.details["all"]["all"]["calibration_error"] == expected.details["all"]["all"]["calibration_error"]


def test_writing_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "kept.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        save.save_json({"good": 1, "bad": object()}, path)
    with pytest.raises(PizaError, match="record 3 has no score"):
        save.save_coco([{"id": 3, "box": [0, 0, 1, 1], "score": None}], path)
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["kept.json"]
    with pytest.raises(PizaError, match="cannot write"):
        save.save_json({}, tmp_path / "no" / "x.json")
    with pytest.raises(PizaError, match="there is no folder"):
        save.check_folder(tmp_path / "no" / "x.json")
