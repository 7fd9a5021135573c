"""`piza evaluate --predictions`: what it prints, writes and refuses, without any model."""

import json

import pytest

from piza_jax.cli import main

TARGETS = {1: [100, 100, 30, 20], 2: [500, 300, 40, 40], 3: [900, 900, 25, 50]}
WHOLE, AROUND = [0, 0, 2000, 1500], [400, 200, 700, 500]


@pytest.fixture
def files(tmp_path):
    """Options that score three predictions: one right, one look-alike with its zoom, one loose with no steps."""
    records = [{"image": "a.jpg", "bbox": box, "ref": "a b c", "id": number} for number, box in TARGETS.items()]
    (tmp_path / "val.json").write_text(json.dumps(records))
    step = {"score": 0.5, "progress": 0, "stop_probability": 0}
    steps = [step | {"crop": WHOLE, "box": AROUND}, step | {"crop": AROUND, "box": [600, 400, 640, 440]}]
    found = [
        {"id": 1, "box": [100, 100, 130, 120], "score": 0.9, "steps": 1},
        {"id": 2, "box": [600, 400, 640, 440], "score": 0.8, "steps": steps},
        {"id": 3, "box": [890, 890, 940, 960], "score": 0.1},
    ]
    (tmp_path / "found.jsonl").write_text("\n".join(map(json.dumps, found)))
    return ["evaluate", f"--predictions={tmp_path}/found.jsonl", f"--annotations={tmp_path}/val.json"]


def test_headline_and_detail_tables(files, capsys):
    assert main(files) == 0
    headline = capsys.readouterr().out
    assert headline.splitlines() == [
        "split  targets         mAcc %  Acc50 %  Acc75 %  IoU %  steps  count",
        "--------------------------------------------------------------------",
        "val    all               33.3     33.3     33.3   45.2   1.50      3",
        "val    < 1000 px2       100.0    100.0    100.0  100.0   1.00      1",
        "val    1000..1500 px2     0.0      0.0      0.0   35.7      -      1",
        "val    >= 1500 px2        0.0      0.0      0.0    0.0   2.00      1",
    ]
    assert main([*files, "--details"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(headline)
    tables = [table.splitlines() for table in text.strip().split("\n\n")]
    assert [table[0].split()[:2] for table in tables] == [
        ["split", "targets"],
        ["split", "group"],
        ["split", "measure"],
        ["split", "wrong"],
    ]
    assert "top5" not in tables[1][0]
    assert [line[:18].rstrip() for line in tables[1][2:8]] == [
        "val    all",
        "val    < 1000 px2",
        "val    1000..1500",
        "val    >= 1500 px2",
        "val    <= 15 words",
        "val    16..25 word",
    ]
    assert {tuple(line.split()[-2:]) for line in tables[3] if "look-alike" in line} == {("1", "50.0")}
    assert {tuple(line.split()[-2:]) for line in tables[3] if "unknown" in line} == {("1", "50.0")}
    assert len({len(line) for line in tables[1] if "count" not in line}) == 1


def test_json_and_files(files, tmp_path, capsys):
    out, coco = tmp_path / "out.json", tmp_path / "coco.json"
    assert main([*files, "--json", "--details", f"--output={out}", f"--coco={coco}"]) == 0
    printed, stored = json.loads(capsys.readouterr().out), json.loads(out.read_text())
    assert printed == {name: stored[name] for name in ("metrics", "scores")}
    assert stored["scores"]["val"]["failures"]["look-alike"] == 1
    assert sum(stored["scores"]["val"]["failures"].values()) == 1
    assert stored["scores"]["val"]["wrong_without_steps"] == 1
    assert stored["scores"]["val"]["details"]["all"]["all"]["stop_accuracy"] == 1
    assert [one["failure"] for one in stored["predictions"]["val"]] == [None, "look-alike", "steps unknown"]
    low, high = stored["scores"]["val"]["intervals"]["Acc50"]
    assert 0 <= low < high <= 1
    again = f"--predictions={out}"
    assert main([files[0], again, files[2], "--json", "--details"]) == 0
    assert json.loads(capsys.readouterr().out) == printed
    assert json.loads(coco.read_text())[2] == {
        "image_id": 3,
        "category_id": 1,
        "bbox": [890, 890, 50, 70],
        "score": 0.1,
    }


def test_each_line_says_why_it_is_wrong(files, tmp_path):
    assert main([*files, f"--output={tmp_path}/out.jsonl"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(line["id"], line["failure"]) for line in lines] == [(1, None), (2, "look-alike"), (3, "steps unknown")]
    assert main(["evaluate", f"--predictions={tmp_path}/out.jsonl", files[2]]) == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--checkpoint=x"], "leave out --checkpoint"),
        (["--images=x"], "leave out --images"),
        (["--single_pass"], "leave out --single_pass"),
        (["--max_steps=3"], "leave out --max_steps"),
        (["--format=xywh"], "look like xyxy"),
        (["--output=/nowhere/at/all.json"], "there is no folder"),
        (["--annotations=again.json", "--coco=y.json"], "one split at a time"),
    ],
)
def test_refusals(files, more, words, capsys):
    assert main([*files, *more]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err
    assert printed.err.count("\n") == 1


def test_annotations_are_needed(files, capsys):
    assert main(files[:2]) == 2
    assert "needs --annotations" in capsys.readouterr().err
