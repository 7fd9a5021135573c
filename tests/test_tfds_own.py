"""A data set from the user's own files: every form that is read, the split, and every fault told at once."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import tfds_sorec
from piza_jax.data.pipeline import train_batches
from piza_jax.data.samples import SampleConfig
from piza_jax.data.scenes import draw_scene
from piza_jax.data.tokenize import Tokenizer
from piza_jax.errors import PizaError
from piza_jax.training.task import open_source
from tfds_sorec.build_own import build, main

SIZE = (160, 120)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Five photos, one of them in a folder below."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "far").mkdir()
    for number in range(5):
        draw_scene(number, SIZE, 3)[0].save(folder / ("far" if number == 4 else "") / f"{number}.png")
    return folder


def records() -> list[dict]:
    """Three for each photo, as the rows of a CSV have them."""
    rows = []
    for number in range(5):
        for record in draw_scene(number, SIZE, 3)[1]:
            corners = dict(zip(("x0", "y0", "x1", "y1"), record.box_xyxy, strict=True))
            name = f"far/{number}.png" if number == 4 else f"{number}.png"
            rows.append({"image": name, "expression": f"{record.expression} Yes, “there”.", **corners})
    return rows


def as_csv(rows, mark=",", columns=("x1", "image", "y1", "expression", "x0", "y0")) -> str:
    lines = [[f'"{row[name]}"' if name == "expression" else str(row[name]) for name in columns] for row in rows]
    return "".join(f"{mark.join(line)}\r\n" for line in [columns, *lines])


def as_xywh(row) -> list[float]:
    return [row["x0"], row["y0"], row["x1"] - row["x0"], row["y1"] - row["y0"]]


def forms(rows) -> dict[str, str]:
    """File name -> the rows in that form."""
    sorec = [
        {"image": row["image"], "ref": row["expression"], "bbox": as_xywh(row), "id": number}
        for number, row in enumerate(rows)
    ]
    names = sorted({row["image"] for row in rows})
    coco_images = [{"id": 70 + number, "file_name": name} for number, name in enumerate(names)]
    numbers = {image["file_name"]: image["id"] for image in coco_images}
    annotations = [
        {"id": number, "image_id": numbers[row["image"]], "caption": row["expression"], "bbox": as_xywh(row)}
        for number, row in enumerate(rows)
    ]
    boxes = [
        {
            "image": row["image"],
            "expression": row["expression"],
            "box": [row[name] for name in ("x0", "y0", "x1", "y1")],
        }
        for row in rows
    ]
    return {
        "rows.csv": "\ufeff" + as_csv(rows),
        "semicolons.csv": as_csv(rows, ";"),
        "rows.jsonl": "\n".join(map(json.dumps, boxes)) + "\n\n",
        "sorec.json": json.dumps(sorec),
        "coco.json": json.dumps({"images": coco_images, "annotations": annotations}, indent=1),
    }


@pytest.mark.parametrize("form", list(forms(records())))
def test_every_form_gives_the_same_records(images, tmp_path, form):
    rows = records()
    (tmp_path / form).write_text(forms(rows)[form], encoding="utf-8", newline="")
    about = build(tmp_path / form, images, tmp_path / "data", val_fraction=0.4)
    assert about["photos"] == {"train": 3, "val": 2}
    assert about["splits"] == {"train": 9, "val": 6}
    seen = {}
    for split in ("train", "val"):
        source = tfds_sorec.open_split(tmp_path / "data", split, dataset="own")
        for index, listed in enumerate(source.listed()):
            item = source[index]
            seen[item["id"]] = item
            assert (listed.id, listed.image, listed.expression) == (item["id"], item["name"], item["expression"])
            np.testing.assert_array_equal(np.float32(listed.box_xyxy), item["box_xyxy"])
    assert sorted(seen) == list(range(15))
    for number, row in enumerate(rows):
        item = seen[number]
        assert set(item) == {"image", "name", "id", "expression", "box_xyxy"}
        assert (item["name"], item["expression"]) == (row["image"], row["expression"])
        np.testing.assert_allclose(item["box_xyxy"], [row[name] for name in ("x0", "y0", "x1", "y1")])
        assert item["image"] == (images / row["image"]).read_bytes()


def written(folder: Path, rows, name: str = "rows.csv") -> Path:
    (folder / name).write_text(as_csv(rows), encoding="utf-8", newline="")
    return folder / name


def test_the_split_is_by_photo_and_by_seed(images, tmp_path):
    path, upside_down = written(tmp_path, records()), written(tmp_path, records()[::-1], "b.csv")

    def held_out(path, data, **options):
        build(path, images, tmp_path / data, **options)
        sources = [tfds_sorec.open_split(tmp_path / data, split, dataset="own") for split in ("train", "val")]
        train, val = ({record.image for record in source.listed()} for source in sources)
        assert train
        assert not train & val
        return val

    first = held_out(path, "a", seed=3, val_fraction=0.4)
    assert held_out(upside_down, "b", seed=3, val_fraction=0.4) == first
    assert any(held_out(path, f"c{seed}", seed=seed, val_fraction=0.4) != first for seed in (4, 5))


def test_copies_of_a_photo_stay_on_one_side(images, tmp_path):
    photos = tmp_path / "images"
    photos.mkdir()
    rows = []
    for number in range(4):
        for copy in ("a", "b"):
            name = f"{copy}{number}.png"
            (photos / name).write_bytes((images / f"{min(number, 3)}.png").read_bytes())
            rows += [{**row, "image": name} for row in records()[3 * number : 3 * number + 3]]
    path = written(tmp_path, rows)
    for seed in range(4):
        build(path, photos, tmp_path / f"{seed}", seed=seed, val_fraction=0.5)
        source = tfds_sorec.open_split(tmp_path / f"{seed}", "val", dataset="own")
        assert set(Counter(record.image[1:] for record in source.listed()).values()) == {6}


def test_the_configuration_trains_on_it_under_any_name(images, tmp_path):
    path = written(tmp_path, records())
    assert main([f"--annotations={path}", f"--images={images}", f"--data_dir={tmp_path / 'data'}", "--name=birds"]) == 0
    data = {"kind": "tfds", "data_dir": str(tmp_path / "data"), "split": "train", "dataset": "own/birds"}
    source = open_source(ConfigDict({"data": data}))
    tokenizer = Tokenizer.train(source.expressions(), 300)
    config = SampleConfig(canvas_hw=(64, 64), max_tokens=48)
    batch = next(iter(train_batches(source, tokenizer, config, batch_size=2, seed=0, num_workers=1)))
    assert batch["image"].shape == (2, 64, 64, 3)
    code = (
        "import sys, tensorflow_datasets as tfds, tfds_sorec\n"
        f"print(len(tfds.data_source('own/birds', split='val', data_dir={str(tmp_path / 'data')!r})))\n"
        "assert not {'tensorflow', 'piza_jax.models'} & set(sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "3\n"


def test_the_same_once_more_stays_and_other_data_is_refused(images, tmp_path, capsys):
    path, data = written(tmp_path, records()), tmp_path / "data"
    common = [f"--annotations={path}", f"--images={images}", f"--data_dir={data}"]
    assert main(common) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("train: 12 expressions on 4 photos\nval: 3 expressions on 1 photos\n")
    assert f"--config.data.dataset=own --config.data.data_dir={data} --config.data.split=train" in printed
    before = {file: file.stat().st_mtime_ns for file in data.rglob("*") if file.is_file()}
    assert main(common) == 0
    assert main([*common, "--seed=1"]) == 2
    assert "holds other data (records, photos, val_fraction or seed differ); remove" in capsys.readouterr().err
    assert {file: file.stat().st_mtime_ns for file in data.rglob("*") if file.is_file()} == before
    assert main([*common, "--name=all", "--val_fraction=0"]) == 0
    with pytest.raises(PizaError, match=r"own \(all\) data set .* has no split 'val', only train"):
        tfds_sorec.open_split(data, "val", dataset="own/all")
    with pytest.raises(PizaError, match=r"no own \(fish\) data set .* build it with python -m tfds_sorec.build_own"):
        tfds_sorec.open_split(data, "val", dataset="own/fish")


def test_every_fault_is_told_at_once_with_line_and_cure(images, tmp_path, capsys):
    photos = tmp_path / "images"
    photos.mkdir()
    (photos / "0.png").write_bytes((images / "0.png").read_bytes())
    (photos / "cut.png").write_bytes((images / "0.png").read_bytes()[:-40])
    text = (
        "image,expression,x0,y0,x1,y1\n"
        "0.png,a car,1,2,9,9\n"
        "0.PNG,a car,1,2,9,9\n"
        '0.png,"two\nlines",1,2,9,nine\n'
        "0.png,,1,2,9,9\n"
        "0.png,a red, old car,1,2,9,9\n"
        "0.png,a car,9,9,4,4\n"
        "0.png,a car,100,2,163,9\n"
        "../0.png,a car,1,2,9,9\n"
        "cut.png,a car,1,2,9,9\n"
        "cut.png,a cone,1,2,9,9\n"
        "0.png,a car,-3,2,9,9\n"
    )
    path = tmp_path / "rows.csv"
    path.write_text(text)
    assert main([f"--annotations={path}", f"--images={photos}", f"--data_dir={tmp_path / 'data'}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: 9 faults in {path}; nothing was written:"
    wanted = {
        3: "there is no photo .*0.PNG; did you mean 0.png",
        4: "four numbers in pixels",
        6: "say what to look for",
        7: "7 cells where the header has 6; put quotes around",
        8: "has no area; x1 and y1 are the right and lower side",
        9: "leaves 0.png of 160 x 120 pixels",
        10: "'../0.png' is not below the folder",
        11: r"cut.png is truncated.* \(1 more rows name it\)",
        13: "the box -3 2 9 9 .* leaves 0.png",
    }
    for line, (number, message) in zip(lines[1:], wanted.items(), strict=True):
        assert line.startswith(f"  {path} line {number}: ")
        assert re.search(message, line), line
    assert not (tmp_path / "data").exists()


def test_only_the_first_twenty_faults_are_listed(images, tmp_path):
    rows = [{**row, "x1": row["x0"]} for row in records() * 2]
    with pytest.raises(PizaError) as caught:
        build(written(tmp_path, rows), images, tmp_path / "data")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("30 faults in ")
    assert len(lines) == 22
    assert lines[-1] == "  and 10 more"


def test_faults_in_json_name_the_record_too(images, tmp_path):
    rows = json.loads(forms(records())["sorec.json"])
    rows[2]["id"], rows[4]["bbox"], rows[5] = 0, [1, 2, 0, 4], "text"
    (tmp_path / "rows.json").write_text(json.dumps(rows[:4])[:-1] + ",\n" + json.dumps(rows[4:])[1:])
    with pytest.raises(PizaError) as caught:
        build(tmp_path / "rows.json", images, tmp_path / "data")
    lines = str(caught.value).splitlines()
    assert "rows.json line 1 record 2: the id 0 is that of line 1 record 0 too" in lines[1]
    assert "rows.json line 2 record 4: the bbox [x, y, width, height] is [1, 2, 0, 4], which has no area" in lines[2]
    assert "rows.json line 2 record 5: 'text' is no object" in lines[3]
    coco = json.loads(forms(records())["coco.json"])
    coco["annotations"][1]["image_id"] = 5
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    with pytest.raises(PizaError, match="line 1 annotation 1: there is no image with the id 5"):
        build(tmp_path / "coco.json", images, tmp_path / "data")
    (tmp_path / "rows.jsonl").write_text('{"image": "0.png"}\n{"image": \n[]\n')
    with pytest.raises(
        PizaError, match=r"3 faults (.|\n)*line 2: no JSON at column 11(.|\n)*line 3: '\[\]' is no object"
    ):
        build(tmp_path / "rows.jsonl", images, tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"image,text,x0,y0,x1,y1\n", "line 1 names the columns image, text.*; expression must be among"),
        ("a.csv", b"image,expression,x0,y0,x1,y1\n", "hold no row"),
        ("a.csv", b'image,expression,x0,y0,x1,y1\n0.png,"a,1,2,3,4\n', "is no CSV from line 2 on"),
        ("a.csv", b"image,expression,x0,y0,x1,y1\n0.png,caf\xe9,1,2,3,4\n", "line 2 is not in UTF-8"),
        ("a.json", b'[{"image":\n }]', r"is no JSON at line 2 column 2: .*; mend"),
        ("a.json", b'{"a": [1, 2]}', "neither a list of records nor"),
        ("a.json", b'{"images": [], "annotations": []} x', "is no JSON at line 1 column 35"),
        ("a.xlsx", b"PK", "no known ending; give one of .csv, .tsv, .jsonl, .json"),
    ],
)
def test_unusable_files_are_named(images, tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PizaError, match=message):
        build(tmp_path / name, images, tmp_path / "data")


def test_settings_that_cannot_be(images, tmp_path):
    path, one = written(tmp_path, records()), written(tmp_path, records()[:3], "one.csv")
    for options, message in (
        ({"name": "Birds"}, "the name 'Birds' cannot be taken"),
        ({"name": "x_photos"}, "cannot be taken"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0"),
        ({"seed": -1}, "seed is -1"),
    ):
        with pytest.raises(PizaError, match=message):
            build(path, images, tmp_path / "data", **options)
    with pytest.raises(PizaError, match="all records are on one photo"):
        build(one, images, tmp_path / "data")
    with pytest.raises(PizaError, match=r"cannot read the annotations .*none.csv \(No such file"):
        build(tmp_path / "none.csv", images, tmp_path / "data")
    with pytest.raises(PizaError, match="photo folder .*none is missing; give --images"):
        build(path, images / "none", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_photos_that_viewers_turn_are_pointed_out(tmp_path, capsys):
    image, _ = draw_scene(0, SIZE, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    rows = [{"image": "turned.jpg", "expression": "a car", "x0": 1, "y0": 2, "x1": 20, "y1": 30}]
    path = written(tmp_path, rows)
    common = [f"--annotations={path}", f"--images={tmp_path}", f"--data_dir={tmp_path / 'data'}"]
    assert main([*common, "--val_fraction=0"]) == 0
    assert "1 photos carry an EXIF rotation, first turned.jpg" in capsys.readouterr().out


def test_a_disk_that_fills_up_leaves_nothing(images, tmp_path, monkeypatch):
    from tfds_sorec.own.own_dataset_builder import Own

    def full(self, *arguments, **options):
        if not self.builder_config.photos:
            raise OSError(28, "No space left on device")
        return real(self, *arguments, **options)

    real = Own.download_and_prepare
    monkeypatch.setattr(Own, "download_and_prepare", full)
    with pytest.raises(PizaError, match="could not be written .*No space left on device; nothing new is there"):
        build(written(tmp_path, records()), images, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
