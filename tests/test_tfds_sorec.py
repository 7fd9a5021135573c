"""The SOREC builder without TensorFlow: what is stored, how it is read back, and what it refuses."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

import tfds_sorec
from piza_jax.data.records import PHOTO_FOLDER, read_annotations
from piza_jax.data.scenes import write_scenes
from piza_jax.errors import PizaError
from tfds_sorec.build import build, main
from tfds_sorec.dummy import FOLDER as DUMMY
from tfds_sorec.dummy import write_dummy_data


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 5, size=(320, 240))
    # train_l speaks of the photos of train_s again, as in SOREC.
    (folder / "trainL.json").write_text((folder / "trainS.json").read_text())
    data = tmp_path_factory.mktemp("data")
    build(folder, data)
    return folder, data


def test_examples_are_the_records_with_the_files_bytes(drawn):
    folder, data = drawn
    for split, file in (("train_s", "trainS"), ("train_l", "trainL"), ("val", "val"), ("test_a", "testA")):
        source = tfds_sorec.open_split(data, split)
        records = read_annotations(folder / f"{file}.json")
        assert len(source) == len(records)
        for index in (0, len(records) - 1):
            item, record = source[index], records[index]
            assert (item["id"], item["name"], item["expression"]) == (record.id, record.image, record.expression)
            np.testing.assert_array_equal(item["box_xyxy"], np.float32(record.box_xyxy))
            assert item["image"] == (folder / PHOTO_FOLDER / record.image).read_bytes()


def test_each_photo_is_stored_once(drawn):
    folder, data = drawn
    photos = tfds.data_source("sorec/photos", split="photos", data_dir=str(data))
    files = sorted((folder / PHOTO_FOLDER).iterdir())
    assert [photo["name"].decode() for photo in photos] == [file.name for file in files]
    assert [photo["image"] for photo in photos] == [file.read_bytes() for file in files]
    # The expressions hold no pixels: their files are smaller than the smallest photo each.
    expressions = sum(path.stat().st_size for path in data.glob("sorec/expressions/*/*.array_record*"))
    assert expressions == 4 * 2**17  # four splits of one array_record block each


def test_tfds_reads_it_by_name_without_tensorflow(drawn):
    _, data = drawn
    code = (
        "import sys, tensorflow_datasets as tfds, tfds_sorec\n"
        f"source = tfds.data_source('sorec/expressions', split='val', data_dir={str(data)!r})\n"
        "print(len(source), source[0]['expression'])\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("8 ")
    assert "street" in out


def test_dummy_data_is_what_the_script_draws_and_builds_all_splits(tmp_path):
    write_dummy_data(tmp_path / "drawn")
    files = {path.relative_to(DUMMY) for path in DUMMY.rglob("*") if path.is_file()}
    assert files == {path.relative_to(tmp_path / "drawn") for path in (tmp_path / "drawn").rglob("*") if path.is_file()}
    for path in files:
        if path.suffix == ".json":
            assert (DUMMY / path).read_bytes() == (tmp_path / "drawn" / path).read_bytes()
    counts = build(DUMMY, tmp_path / "data")
    assert {split: kept for split, (kept, _) in counts.items()} == {
        "train_s": 24,
        "train_l": 24,
        "val": 8,
        "test_a": 8,
        "test_b": 8,
    }


def test_a_source_travels_to_worker_processes(drawn):
    _, data = drawn
    source = tfds_sorec.open_split(data, "val")
    again = pickle.loads(pickle.dumps(source))
    assert again[3]["image"] == source[3]["image"]
    np.testing.assert_array_equal(again.photo_index, source.photo_index)


def test_missing_things_are_named(drawn, tmp_path, capsys):
    _, data = drawn
    with pytest.raises(PizaError, match="has no split 'test_b', only test_a, train_l, train_s, val"):
        tfds_sorec.open_split(data, "test_b")
    with pytest.raises(PizaError, match="there is no SOREC data set"):
        tfds_sorec.open_split(tmp_path, "val")
    (tmp_path / "photos_only" / PHOTO_FOLDER).mkdir(parents=True)
    assert main([f"--manual_dir={tmp_path / 'photos_only'}", f"--data_dir={tmp_path}"]) == 2
    assert "none of trainS.json" in capsys.readouterr().err
    assert main([f"--manual_dir={tmp_path / 'nowhere'}", f"--data_dir={tmp_path}"]) == 2
    assert "is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["truncated", "text", "outside"])
def test_a_damaged_photo_or_box_stops_the_build_and_leaves_no_data_set(tmp_path, damage):
    write_scenes(tmp_path, 1, size=(320, 240))
    photo = tmp_path / PHOTO_FOLDER / "000000.jpg"
    if damage == "truncated":
        photo.write_bytes(photo.read_bytes()[:-300])
        message = "000000.jpg is truncated"
    elif damage == "text":
        photo.write_text("no image")
        message = "000000.jpg is no image"
    else:
        records = json.loads((tmp_path / "trainS.json").read_text())
        records[2]["bbox"] = [310, 5, 30, 30]
        (tmp_path / "trainS.json").write_text(json.dumps(records))
        message = "1 records of train_s have a box outside their photo, first id 2"
    data = tmp_path / "data"
    with pytest.raises(PizaError, match=message):
        build(tmp_path, data)
    assert not list(data.rglob("dataset_info.json"))


def test_real_annotations_keep_the_five_with_photos(shared_dir, tmp_path):
    folder = shared_dir / "sorec"
    with pytest.raises(PizaError, match=r"7933 of 7935 photos are missing under .*Images: "):
        build(folder, tmp_path)
    counts = build(folder, tmp_path, allow_missing_images=True)
    assert counts == {"test_a": (5, 10_810), "train_s": (0, 10_000), "val": (0, 10_712)}
    source = tfds_sorec.open_split(tmp_path, "test_a")
    assert [source[index]["id"] for index in range(5)] == [3, 42, 52, 985, 2648]
    names = {item["name"] for item in map(source.__getitem__, range(5))}
    assert names == {"24244.jpg", "21035.jpg"}
    for index in range(5):
        item = source[index]
        assert item["image"] == (folder / PHOTO_FOLDER / item["name"]).read_bytes()
