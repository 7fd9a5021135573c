"""RefCOCO, RefCOCO+ and RefCOCOg from the files people have: what is stored, left out and refused."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfds_sorec
from piza_jax import cli
from piza_jax.data.pipeline import train_batches
from piza_jax.data.samples import SampleConfig
from piza_jax.data.scenes import draw_scene
from piza_jax.data.tokenize import Tokenizer
from piza_jax.errors import PizaError
from tests.refcoco_files import draw_photos, photo_name, write_mdetr, write_refer
from tfds_sorec.build_refcoco import build, main

SPLITS = {"train": [0, 1, 2], "val": [3], "testA": [4], "testB": [5]}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """RefCOCO in MDETR's form with photo 3 in train too, RefCOCO+ and RefCOCOg in refer's."""
    folder = tmp_path_factory.mktemp("files")
    draw_photos(folder / "train2014", 6)
    write_mdetr(folder, "refcoco", {**SPLITS, "train": [0, 1, 2, 3]})
    write_refer(folder, "refcoco+", SPLITS)
    write_refer(folder, "refcocog", {"train": [0, 2, 5], "val": [1], "test": [3]}, "refs(umd).p")
    return folder


@pytest.fixture(scope="module")
def built(files, tmp_path_factory) -> Path:
    data = tmp_path_factory.mktemp("data")
    counts = build(files, data)
    assert counts["refcoco"]["splits"] == {"train": 12, "val": 4, "test_a": 4, "test_b": 4}
    assert counts["refcoco_plus"]["splits"] == {"train": 24, "val": 8, "test_a": 8, "test_b": 8}
    assert counts["refcocog"]["splits"] == {"train": 24, "val": 8, "test": 8}
    return data


def test_records_have_the_words_boxes_and_photos_of_the_files(files, built):
    for dataset, first in (("refcoco", str.upper), ("refcoco_plus", str.lower)):
        for split, number in (("val", 3), ("test_a", 4)):
            source = tfds_sorec.open_split(built, split, dataset=dataset)
            drawn = draw_scene(number, (320, 240), 4)[1]
            item = source[0]
            assert set(item) == {"image", "name", "id", "expression", "box_xyxy"}
            assert item["expression"] == first(drawn[0].expression)
            assert item["name"] == photo_name(number)
            assert item["image"] == (files / "train2014" / photo_name(number)).read_bytes()
            np.testing.assert_array_equal(source[len(source) - 1]["box_xyxy"], np.float32(drawn[-1].box_xyxy))
            assert len({source[index]["id"] for index in range(len(source))}) == len(source)


def test_photos_of_other_splits_leave_train_and_are_counted(files, built, capsys):
    source = tfds_sorec.open_split(built, "train", dataset="refcoco")
    assert {source[index]["name"] for index in range(12)} == {photo_name(number) for number in (0, 1, 2)}
    assert main([f"--manual_dir={files}", f"--data_dir={built}", "--variants", "refcoco"]) == 0
    assert "train: 12 expressions, 4 left out on 1 photos that other splits show" in capsys.readouterr().out


def test_photos_held_out_by_any_of_the_three_leave_train_when_asked(files, built, tmp_path):
    counts = build(files, tmp_path, ["refcoco"], across_variants=True)
    assert counts["refcoco"]["splits"]["train"] == 8  # photo 1 is in the val of RefCOCOg
    assert counts["refcoco"]["left_out"] == {"train": {"photo held out": 8, "photos": 2}}
    with pytest.raises(PizaError, match="was built with across_variants=True; remove it"):
        build(files, tmp_path, ["refcoco"])


def test_a_built_data_set_feeds_training_and_needs_no_tensorflow(built):
    source = tfds_sorec.open_split(built, "train", dataset="refcocog")
    tokenizer = Tokenizer.train(source.expressions(), 300)
    config = SampleConfig(canvas_hw=(64, 64), max_tokens=32)
    batch = next(iter(train_batches(source, tokenizer, config, batch_size=2, seed=0)))
    assert batch["image"].shape == (2, 64, 64, 3)
    code = (
        "import sys, tensorflow_datasets as tfds, tfds_sorec\n"
        f"print(len(tfds.data_source('refcoco/refcoco_plus', split='val', data_dir={str(built)!r})))\n"
        "assert not {'tensorflow', 'piza_jax.models'} & set(sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "8\n"


def test_evaluation_takes_the_data_set_by_name(built):
    words = ["evaluate", "--checkpoint=elsewhere", f"--data_dir={built}", "--dataset=refcocog", "--split=val"]
    sources = cli._sources(cli._parser().parse_args([*words, "--split=test"]))
    assert {name: (len(source), source[0]["name"]) for name, source in sources.items()} == {
        "val": (8, photo_name(1)),
        "test": (8, photo_name(3)),
    }


def test_photos_are_found_under_their_later_names_or_elsewhere(files, tmp_path):
    photos = tmp_path / "coco" / "val2017"
    photos.mkdir(parents=True)
    (photos / "000000000003.jpg").write_bytes((files / "train2014" / photo_name(3)).read_bytes())
    write_mdetr(tmp_path, "refcoco", {"val": [3]})
    build(tmp_path, tmp_path / "data")
    assert tfds_sorec.open_split(tmp_path / "data", "val", dataset="refcoco")[0]["name"] == photo_name(3)
    build(tmp_path, tmp_path / "more", images=files)
    assert len(tfds_sorec.open_split(tmp_path / "more", "val", dataset="refcoco")) == 4


def test_missing_photos_are_named_or_left_out(tmp_path, capsys):
    draw_photos(tmp_path / "train2014", 1)
    write_mdetr(tmp_path, "refcoco+", {"train": [0, 1], "val": [2]})
    arguments = [f"--manual_dir={tmp_path}", f"--data_dir={tmp_path / 'data'}"]
    assert main(arguments) == 2
    assert f"2 of 3 photos are missing: {photo_name(1)}, {photo_name(2)}; put COCO's" in capsys.readouterr().err
    assert not list((tmp_path / "data").iterdir())
    assert main([*arguments, "--allow_missing_images"]) == 0
    assert "train: 4 expressions, 4 left out for want of their photo" in capsys.readouterr().out
    with pytest.raises(PizaError, match=r"RefCOCO\+ data set .* has no split 'val', only train"):
        tfds_sorec.open_split(tmp_path / "data", "val", dataset="refcoco_plus")


def test_entries_without_words_are_left_out_and_counted(tmp_path):
    draw_photos(tmp_path / "train2014", 1)
    write_mdetr(tmp_path, "refcoco", {"val": [0]})
    path = tmp_path / "finetune_refcoco_val.json"
    values = json.loads(path.read_text())
    values["images"][1]["caption"] = "  "
    path.write_text(json.dumps(values))
    about = build(tmp_path, tmp_path / "data")["refcoco"]
    assert about["splits"] == {"val": 3}
    assert about["left_out"] == {"val": {"no words": 1}}


class Hostile:
    def __reduce__(self):
        return os.system, ("touch INTRUDER",)


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw_photos(tmp_path / "train2014", 1)
    write_refer(tmp_path, "refcoco", {"train": [0]})
    for protocol in (0, 2, 4):
        (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps([Hostile()], protocol=protocol))
        assert main([f"--manual_dir={tmp_path}", f"--data_dir={tmp_path / 'data'}"]) == 2
        assert "refs(unc).p asks for posix.system" in capsys.readouterr().err
    assert not (tmp_path / "INTRUDER").exists()
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(b"no pickle")
    with pytest.raises(PizaError, match=r"cannot read .*refs\(unc\).p .*; fetch it again"):
        build(tmp_path, tmp_path / "data")


def _damage(folder: Path, change) -> None:
    path = folder / "finetune_refcoco_val.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values["images"][2].pop("caption"), "image 2 of .*val.json has no caption; fetch"),
        (lambda values: values["annotations"].pop(), "image 3 of .* has a caption with 0 boxes"),
        (lambda values: values["annotations"][1].update(bbox=[1, 2, 0, 4]), "image 1 of .* bbox of zero size"),
        (lambda values: values["annotations"][1].update(bbox=[300, 2, 30, 4]), "1 records of val have a box outside"),
        (lambda values: values.pop("annotations"), "has no lists of images and annotations"),
    ],
)
def test_bad_entries_are_named_and_leave_no_data_set(tmp_path, change, message):
    draw_photos(tmp_path / "train2014", 1)
    write_mdetr(tmp_path, "refcoco", {"val": [0]})
    _damage(tmp_path, change)
    with pytest.raises(PizaError, match=message):
        build(tmp_path, tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*record*"))


def test_absent_annotations_are_named_with_the_places(tmp_path, capsys):
    assert main([f"--manual_dir={tmp_path}", f"--data_dir={tmp_path}"]) == 2
    printed = capsys.readouterr().err
    assert "finetune_refcoco+_train.json ... testB.json" in printed
    assert "refcocog/refs(umd).p with instances.json" in printed
    write_refer(tmp_path, "refcoco", {"train": [0]})
    (tmp_path / "refcoco" / "instances.json").unlink()
    with pytest.raises(PizaError, match="instances.json with its boxes is missing"):
        build(tmp_path, tmp_path)
