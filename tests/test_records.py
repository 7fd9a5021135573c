"""Reading annotation files, and drawn scenes in the same form."""

import json

import numpy as np
import pytest

from piza_jax.data.records import PHOTO_FOLDER, RecordSource, read_annotations
from piza_jax.data.scenes import draw_scene, write_scenes
from piza_jax.errors import PizaError

GOOD = {"image": "1.jpg", "bbox": [3, 4, 20, 30], "ref": "The red car.", "id": 7}


def written(tmp_path, items) -> str:
    path = tmp_path / "val.json"
    path.write_text(items if isinstance(items, str) else json.dumps(items), encoding="utf-8")
    return str(path)


def test_boxes_become_corners_and_words_stay(tmp_path):
    (record,) = read_annotations(written(tmp_path, [GOOD | {"ref": "Café à gauche."}]))
    assert record.box_xyxy == (3, 4, 23, 34)
    assert (record.id, record.image, record.expression) == (7, "1.jpg", "Café à gauche.")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [3, 4, 0, 30]}, "record 1 of .*val.json has a bbox of zero size"),
        ({"bbox": [-3, 4, 5, 30]}, "record 1 of .*val.json has a bbox outside the photo"),
        ({"bbox": [3, 4, 5]}, "record 1 .*four numbers"),
        ({"bbox": "3456"}, "record 1 .*four numbers"),
        ({"bbox": [3, 4, float("nan"), 5]}, "record 1 .*four numbers"),
        ({"bbox": [3, 4, float("inf"), 5]}, "record 1 .*four numbers"),
        ({"bbox": [3, 4, 10**400, 5]}, "record 1 .*four numbers"),
        ({"bbox": [3, 4, True, 5]}, "record 1 .*four numbers"),
        ({"ref": "  "}, "record 1 .*no words in ref"),
        ({"image": "../1.jpg"}, "record 1 .*no plain file name"),
        ({"id": "7"}, "record 1 .*no whole number"),
        ({"id": 7}, "records 0 and 1 .*share the id 7"),
    ],
)
def test_a_bad_record_is_named_by_file_and_number(tmp_path, change, message):
    with pytest.raises(PizaError, match=message):
        read_annotations(written(tmp_path, [GOOD, GOOD | {"id": 8} | change]))


def test_malformed_files_are_named(tmp_path):
    text = json.dumps([GOOD, GOOD | {"id": 8}])
    with pytest.raises(PizaError, match=r"val.json is no JSON at line 1 column \d+, near record 2"):
        read_annotations(written(tmp_path, text[:-3]))
    with pytest.raises(PizaError, match="record 1 of .* has no ref and no id"):
        read_annotations(written(tmp_path, [GOOD, {"image": "1.jpg", "bbox": [1, 2, 3, 4]}]))
    with pytest.raises(PizaError, match="holds no list"):
        read_annotations(written(tmp_path, {"a": 1}))
    with pytest.raises(PizaError, match="nowhere.json is missing"):
        read_annotations(tmp_path / "nowhere.json")


def test_missing_photos_are_named_unless_allowed(tmp_path):
    write_scenes(tmp_path, 3, size=(256, 192))
    records = read_annotations(tmp_path / "trainS.json")
    photos = tmp_path / PHOTO_FOLDER
    source = RecordSource(records, photos)
    assert len(source) == len(records)
    item = source[0]
    assert item["image"] == (photos / records[0].image).read_bytes()
    np.testing.assert_array_equal(item["box_xyxy"], np.float32(records[0].box_xyxy))
    (photos / "000000.jpg").unlink()
    with pytest.raises(PizaError, match=r"1 of 1 photos are missing under .*Images: 000000.jpg; fetch"):
        RecordSource(records, photos)
    with pytest.raises(PizaError, match="none of the 8 records"):
        RecordSource(records, photos, allow_missing=True)
    with pytest.raises(PizaError, match="folder .*elsewhere is missing"):
        RecordSource(records, tmp_path / "elsewhere")


def test_real_annotations_read_whole_and_five_have_photos(shared_dir):
    folder = shared_dir / "sorec"
    counts = {name: len(read_annotations(folder / f"{name}.json")) for name in ("trainS", "val", "testA")}
    assert counts == {"trainS": 10_000, "val": 10_712, "testA": 10_815}
    source = RecordSource(read_annotations(folder / "testA.json"), folder / PHOTO_FOLDER, allow_missing=True)
    assert sorted(record.id for record in source.records) == [3, 42, 52, 985, 2648]
    assert source.left_out == 10_810


def test_scenes_repeat_by_seed_and_name_each_target_once():
    image, records = draw_scene(5)
    again, same = draw_scene(5)
    assert records == same
    np.testing.assert_array_equal(np.asarray(image), np.asarray(again))
    assert np.any(np.asarray(image) != np.asarray(draw_scene(6)[0]))
    words = [record.expression.split()[1:3] for record in records]
    assert len({tuple(pair) for pair in words}) == len(records)
    for record in records:
        x0, y0, x1, y1 = record.box_xyxy
        assert 0 <= x0 < x1 <= image.width
        assert 0 <= y0 < y1 <= image.height


def test_an_empty_split_is_named(tmp_path):
    with pytest.raises(PizaError, match="the annotations are empty"):
        RecordSource(read_annotations(written(tmp_path, [])), tmp_path)
