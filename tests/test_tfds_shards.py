"""Data sets of any size are built without TensorFlow: photos go from where they come from to their file, in order."""

import subprocess
import sys

import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle

import tfds_sorec
from piza_jax.data.mini_source import MiniSource
from piza_jax.data.records import PHOTO_FOLDER
from piza_jax.data.scenes import write_scenes
from tfds_sorec import shards
from tfds_sorec.build import build
from tfds_sorec.build_mini import build as build_mini


@pytest.mark.parametrize(("number", "lengths"), [(1, [1]), (3, [3]), (4, [3, 1]), (6, [3, 3]), (7, [3, 3, 1])])
def test_photos_are_cut_into_files_in_order(monkeypatch, number, lengths):
    monkeypatch.setattr(shards, "PHOTOS_A_SHARD", 3)
    ended = []

    def photos():
        yield from ((index, {"name": str(index)}) for index in range(number))
        ended.append(True)

    made = [list(shard()) for shard in shards.photo_shards(photos(), number)]
    assert [len(shard) for shard in made] == lengths
    assert [index for shard in made for index, _ in shard] == list(range(number))
    assert ended == [True]


def test_photos_are_made_when_their_file_is_written(monkeypatch):
    monkeypatch.setattr(shards, "PHOTOS_A_SHARD", 2)
    made = []

    def photos():
        for index in range(5):
            made.append(index)
            yield index, {}

    files = shards.photo_shards(photos(), 5)
    assert made == []
    for file, so_far in zip(files, ([0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4]), strict=True):
        list(file())
        assert made == so_far


@pytest.fixture
def no_memory(monkeypatch):
    """TFDS's usual writer keeps nothing in memory, as if all data were larger, and files hold two photos."""
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 0)
    monkeypatch.setattr(shards, "PHOTOS_A_SHARD", 2)


def test_sorec_larger_than_memory_is_built(no_memory, tmp_path):
    folder, data = tmp_path / "scenes", tmp_path / "data"
    write_scenes(folder, 5, size=(320, 240))
    build(folder, data)
    photos = tfds.data_source("sorec/photos", split="photos", data_dir=str(data))
    files = sorted((folder / PHOTO_FOLDER).iterdir())
    assert [photo["name"].decode() for photo in photos] == [file.name for file in files]
    assert [photo["image"] for photo in photos] == [file.read_bytes() for file in files]
    assert len(list(data.rglob("sorec-photos.array_record-*"))) == 3
    assert "tensorflow" not in sys.modules


def test_sorec_mini_larger_than_memory_is_built(no_memory, tmp_path):
    build_mini(tmp_path, variants=["small"], scenes={"train_s": 2, "val": 1}, workers=1)
    for split, scenes in (("train_s", 2), ("val", 1)):
        source, drawn = tfds_sorec.open_split(tmp_path, split, dataset="sorec_mini"), MiniSource(split, scenes)
        assert [source[index]["name"] for index in range(len(source))] == [record.image for _, record in drawn.records]
        assert source[len(source) - 1]["image"] == drawn[len(drawn) - 1]["image"]
    assert len(list(tmp_path.rglob("sorec_mini-photos.array_record-*"))) == 2


def test_a_build_without_tensorflow_stays_small_in_memory(tmp_path):
    """Forty photos of 8 MB in files of two: the peak is far below the 320 MB of all of them."""
    code = (
        "import resource, sys, numpy as np\n"
        "import tensorflow_datasets as tfds\n"
        "from piza_jax.data.records import Record\n"
        "from tfds_sorec import shards\n"
        "from tfds_sorec.own.own_dataset_builder import Own\n"
        "from tfds_sorec.pair import Pair, Photo\n"
        "shards.PHOTOS_A_SHARD = 2\n"
        "from pathlib import Path\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "data = np.random.default_rng(0).bytes(8 * 2**20)\n"
        "(folder / 'photo.jpg').write_bytes(data)\n"
        "photos = {f'{n}.jpg': Photo(folder / 'photo.jpg', 10, 10) for n in range(40)}\n"
        "pair = Pair({'train': [Record(n, name, 'a thing', (1, 1, 5, 5)) for n, name in enumerate(photos)]}, photos)\n"
        "builder = Own(config='own_photos', data_dir=str(folder / 'data'), pair=pair)\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10\n"
        "before = peak()\n"
        "builder.download_and_prepare()\n"
        "print(len(builder.as_data_source(split='photos')), peak() - before, 'tensorflow' in sys.modules)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    number, grown, tensorflow = out.split()[-3:]
    assert (number, tensorflow) == ("40", "False")
    assert float(grown) < 160
