"""SOREC-mini's builder without TensorFlow, and the same records drawn with nothing built."""

import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import tfds_sorec
from piza_jax.data.mini_source import MiniSource
from piza_jax.data.pipeline import train_batches
from piza_jax.data.samples import SampleConfig
from piza_jax.data.tokenize import Tokenizer
from piza_jax.data.world.pool import in_processes
from piza_jax.errors import PizaError
from tfds_sorec.build_mini import build, main

SPLITS = ("train_s", "train_l", "val", "test_a", "test_b")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """One scene of each split, six of train_l; six and one of the normal variant."""
    data = tmp_path_factory.mktemp("mini")
    counts = build(data, scale=0.002)
    assert list(counts["small"]) == list(SPLITS)
    assert set(counts["normal"]) == {"train", "val"}
    assert counts["small"]["train_l"] == 4 * counts["small"]["train_s"] == 40
    return data


def _sources(data: Path):
    for split, scenes in {"train_s": 1, "train_l": 4, "val": 1, "test_a": 1, "test_b": 1}.items():
        yield tfds_sorec.open_split(data, split, dataset="sorec_mini"), MiniSource(split, scenes)
    for split, scenes in {"train": 6, "val": 1}.items():
        yield tfds_sorec.open_split(data, split, dataset="sorec_mini_normal"), MiniSource(split, scenes, normal=True)


def test_built_records_are_those_drawn_on_the_fly(built):
    for stored, drawn in _sources(built):
        assert len(stored) == len(drawn)
        assert stored.expressions() == drawn.expressions()
        assert stored.expressions()[-1] == stored[len(stored) - 1]["expression"]
        for index in (0, len(drawn) // 2, len(drawn) - 1):
            one, other = stored[index], drawn[index]
            assert set(one) == set(other) == {"image", "name", "id", "expression", "box_xyxy"}
            assert [one[name] for name in ("image", "name", "id", "expression")] == [
                other[name] for name in ("image", "name", "id", "expression")
            ]
            assert one["box_xyxy"].dtype == other["box_xyxy"].dtype == np.float32
            np.testing.assert_array_equal(one["box_xyxy"], other["box_xyxy"])


def test_records_have_ids_of_their_own_and_scenes_of_their_split(built):
    names: dict[str, set[str]] = {}
    for split in SPLITS:
        source = tfds_sorec.open_split(built, split, dataset="sorec_mini")
        records = [source[index] for index in range(len(source))]
        assert len({record["id"] for record in records}) == len(records)
        names[split] = {record["name"] for record in records}
        assert Image.open(io.BytesIO(records[0]["image"])).size == (2048, 1536)
    assert len(set.union(*names.values())) == sum(map(len, names.values())) == 8


def test_each_photo_is_stored_once(built):
    for config, number in (("small_photos", 8), ("normal_photos", 7)):
        photos = tfds.data_source(f"sorec_mini/{config}", split="photos", data_dir=str(built))
        assert len({photo["name"] for photo in photos}) == len(photos) == number
        for photo in photos:
            assert Image.open(io.BytesIO(photo["image"])).size == (photo["width"], photo["height"])


def test_tfds_reads_it_by_name_without_tensorflow_and_without_model_code(built):
    code = (
        "import sys, tensorflow_datasets as tfds, tfds_sorec\n"
        f"source = tfds.data_source('sorec_mini/small', split='val', data_dir={str(built)!r})\n"
        "print(len(source), source[0]['expression'].decode())\n"
        "assert not {'tensorflow', 'torch', 'piza_jax.models'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("10 ")
    assert len(done.stdout.split()) > 10


def test_a_finished_build_stays_and_another_size_is_refused(built, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*array_record*")}
    assert main([f"--data_dir={built}", "--scale=0.002", "--workers=1"]) == 0
    assert "small train_l: 40 expressions" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*array_record*")} == before
    assert main([f"--data_dir={built}", "--scale=0.004", "--variants", "normal"]) == 2
    assert "has scenes {'train': 6, 'val': 1}, not {'train': 12, 'val': 1}" in capsys.readouterr().err
    assert main([f"--data_dir={tmp_path}", "--scale=0"]) == 2
    assert "scale is 0.0" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*array_record*"))


def test_a_build_may_name_its_splits_and_photos_built_apart_are_noticed(tmp_path):
    assert set(build(tmp_path, variants=("normal",), scenes={"val": 3})["normal"]) == {"val"}
    source = tfds_sorec.open_split(tmp_path, "val", dataset="sorec_mini_normal")
    assert len(source) == len(MiniSource("val", 3, normal=True))
    with pytest.raises(PizaError, match="give numbers above 0 for splits of train, val"):
        build(tmp_path, variants=("normal",), scenes={"test": 3})
    apart = tmp_path / "apart"
    tfds_sorec.SorecMini(config="normal", data_dir=str(apart), scenes={"train": 2, "val": 2}).download_and_prepare()
    photos = tfds_sorec.SorecMini(config="normal_photos", data_dir=str(apart), scenes={"train": 1, "val": 2})
    photos.download_and_prepare()
    assert tfds_sorec.open_split(apart, "train", dataset="sorec_mini_normal")[0]["name"] == "normal_train_000000.jpg"
    val = tfds_sorec.open_split(apart, "val", dataset="sorec_mini_normal")
    for index, number in ((0, 2), (len(val) - 1, 3)):
        with pytest.raises(
            PizaError, match=f"photo {number} of .* is not normal_val_00000{number - 2}.jpg: .* built apart"
        ):
            val[index]


def test_the_command_takes_scenes_of_each_split(tmp_path, capsys):
    assert main([f"--data_dir={tmp_path}", "--variants=normal", "--workers=1", "--scenes", "val=2", "train=1"]) == 0
    assert [line.rpartition(":")[0] for line in capsys.readouterr().out.splitlines()[-2:]] == [
        "normal train",
        "normal val",
    ]
    assert main([f"--data_dir={tmp_path}", "--scenes", "val=2"]) == 2
    assert "--scenes is for one variant" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([f"--data_dir={tmp_path}", "--scenes", "val"])
    assert "'val' is not SPLIT=NUMBER, such as train_s=300" in capsys.readouterr().err


def test_missing_things_are_named(built, tmp_path):
    with pytest.raises(PizaError, match="there is no data set 'mini', only sorec, sorec_mini, sorec_mini_normal"):
        tfds_sorec.open_split(built, "val", dataset="mini")
    with pytest.raises(PizaError, match="SOREC-mini data set under .* has no split 'test', only test_a, "):
        tfds_sorec.open_split(built, "test", dataset="sorec_mini")
    with pytest.raises(
        PizaError, match="there is no SOREC-mini data set .* build it with python -m tfds_sorec.build_mini"
    ):
        tfds_sorec.open_split(tmp_path, "val", dataset="sorec_mini")
    with pytest.raises(PizaError, match="there is no SOREC data set"):
        tfds_sorec.open_split(built, "val")
    with pytest.raises(PizaError, match="num_scenes is 0"):
        MiniSource("val", 0)
    with pytest.raises(PizaError, match="has no split 'test_a', only train, val"):
        MiniSource("test_a", 1, normal=True)


def test_sources_travel_to_worker_processes(built):
    for stored, drawn in list(_sources(built))[-1:]:
        for source in (stored, drawn):
            again = pickle.loads(pickle.dumps(source))
            assert again[0]["image"] == source[0]["image"]
            np.testing.assert_array_equal(again[len(source) - 1]["box_xyxy"], source[len(source) - 1]["box_xyxy"])


def test_sources_feed_the_training_pipeline(built):
    for source in next(_sources(built)):
        tokenizer = Tokenizer.train(source.expressions(), 400)
        config = SampleConfig(canvas_hw=(64, 64), max_tokens=64)
        batch = next(iter(train_batches(source, tokenizer, config, batch_size=2, seed=0)))
        assert batch["image"].shape == (2, 64, 64, 3)
        assert (batch["history"].max(axis=(1, 2)) == 2048).all()


def test_work_in_processes_comes_back_in_order():
    tasks = [(number, 2) for number in range(23)]
    wanted = [divmod(*task) for task in tasks]
    assert list(in_processes(_divide, tasks, workers=1)) == wanted
    assert list(in_processes(_divide, tasks, workers=2, chunk=3)) == wanted
    assert list(in_processes(_divide, [], workers=2)) == []


def _divide(task: tuple[int, int]) -> tuple[int, int]:
    return divmod(*task)
