"""Statistics of a data set and the page of samples: counted right, self-contained, escaped."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from piza_jax.cli import main
from piza_jax.data import sample_sheet, statistics
from piza_jax.data.mini_source import MiniSource
from piza_jax.data.records import PHOTO_FOLDER, Record, RecordSource
from piza_jax.data.scenes import write_scenes
from piza_jax.errors import PizaError
from tests.small_source import encoded
from tfds_sorec.build import build

HOSTILE = "a <script>alert(\"x\")</script> & 'car' <img src=http://example.org/a.png>"


@pytest.fixture
def source(tmp_path) -> RecordSource:
    """Three records on a photo of 100 x 50 and one of 200 x 100 pixels."""
    for name, size in (("a.png", (100, 50)), ("b.png", (200, 100))):
        (tmp_path / name).write_bytes(encoded(Image.new("RGB", size, "gray")))
    records = [
        Record(7, "a.png", "The red car.", (10, 10, 20, 20)),
        Record(8, "a.png", "A car, red (again).", (10, 10, 20, 20)),
        Record(9, "b.png", HOSTILE, (0, 0, 40, 10)),
    ]
    return RecordSource(records, tmp_path)


def test_statistics_count_what_is_there(source):
    found = statistics.measure(source)
    assert (found.expressions, found.photos, found.repeated_boxes) == (3, 2, 1)
    assert found.words == pytest.approx({"min": 3, "p5": 3.1, "median": 4, "mean": 13 / 3, "p95": 5.8, "max": 6})
    assert found.side_px["median"] == 10
    assert found.side_px["max"] == 20
    assert found.area_percent["min"] == found.area_percent["max"] == pytest.approx(2)
    assert found.expressions_per_photo["mean"] == 1.5
    assert found.photo_megapixels["max"] == pytest.approx(0.02)
    assert found.side_counts == {"8-12 px": 2, "12-16 px": 0, "16-24 px": 1}
    assert found.word_counts == {"<= 5 words": 2, "6-10 words": 1}
    words = {"the", "red", "car", "a", "again"}
    assert found.vocabulary == len(
        words | {'<script>alert("x")</script>', "&", "<img", "src=http://example.org/a.png>"}
    )
    text = statistics.text(found)
    assert text.startswith("3 expressions on 2 photos")
    assert "1 expressions share photo and box" in text


def test_few_photos_are_enough_and_unreadable_ones_are_named(source, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no photo")
    assert statistics.measure(source).unreadable == ["a.png"]
    one = statistics.measure(source, max_photos=1)
    assert one.photos_read == 1
    assert one.area_percent == {}
    assert "photos that cannot be read, the first: a.png" in statistics.text(one)
    with pytest.raises(PizaError, match="max_photos is -1"):
        statistics.measure(source, -1)


def test_samples_are_on_different_photos_first_and_by_seed():
    records = [Record(number, f"{number // 5}.png", "x", (0, 0, 1, 1)) for number in range(50)]
    chosen = sample_sheet.choose(records, 10, 0)
    assert chosen == sorted(chosen) == sample_sheet.choose(records, 10, 0)
    assert len({records[index].image for index in chosen}) == 10
    assert chosen != sample_sheet.choose(records, 10, 1)
    assert len(set(sample_sheet.choose(records, 30, 0))) == 30
    assert sample_sheet.choose(records, 99, 0) == list(range(50))


class _Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_the_page_holds_all_itself_and_escapes_what_the_data_say(source, tmp_path):
    path = tmp_path / "sheet.html"
    found = statistics.measure(source)
    assert sample_sheet.save_sheet(source, found, path, title="<b>mine</b>", num=3) == 3
    text = path.read_text(encoding="utf-8")
    page = _Page(text)
    names = [name for name, _ in page.tags]
    assert not {"script", "link", "iframe"} & set(names)
    assert names.count("b") == 5  # the tiles' figures, none from the title
    assert HOSTILE in page.text
    assert "<b>mine</b>" in page.text
    sources = [attributes["src"] for name, attributes in page.tags if name == "img"]
    assert len(sources) == 6
    for one in sources:
        assert one.startswith("data:image/jpeg;base64,")
        assert Image.open(io.BytesIO(base64.b64decode(one.split(",", 1)[1]))).format == "JPEG"
    assert not re.search(r"url\(|@import|(src|href)=\"?(http|//)", text.replace("src=http://example", ""))
    assert "prefers-color-scheme: dark" in text
    assert all(fact in page.text for fact in ("10 10 20 20", "10 x 10 px, 2%", "a.png (100 x 50)"))
    assert list(tmp_path.glob("*.tmp")) == []


def test_the_marks_are_around_the_target():
    photo = Image.new("RGB", (1440, 720), (90, 90, 90))
    photo.paste((0, 200, 0), (600, 300, 620, 310))
    small = np.asarray(sample_sheet.mark_photo(photo, (600, 300, 620, 310))).astype(int)
    assert small.shape == (360, 720, 3)
    rows, columns = np.nonzero(np.abs(small - [255, 45, 120]).sum(-1) < 60)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(305, abs=1.5)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(152.5, abs=1.5)
    assert columns.max() - columns.min() == pytest.approx(44, abs=3)  # a ring, since the target is 10 x 5 there
    crop = np.asarray(sample_sheet.crop_target(photo, (600, 300, 620, 310))).astype(int)
    assert crop.shape == (360, 360, 3)
    green = np.abs(crop - [0, 200, 0]).sum(-1) < 60
    assert green.sum() == pytest.approx(20 * 10 * (360 / 80) ** 2, rel=0.1)  # nothing of it is hidden
    corner = sample_sheet.crop_target(photo, (0, 0, 20, 10))
    assert corner.size == (360, 360)  # shifted into the photo


def test_a_target_as_large_as_its_photo_is_shown_too():
    photo = Image.new("RGB", (30, 200), (90, 90, 90))
    assert sample_sheet.mark_photo(photo, (0, 0, 30, 200)).size == (30, 200)
    assert sample_sheet.crop_target(photo, (0, 0, 30, 200)).size == (54, 360)


def test_the_command_prints_and_writes_for_a_built_data_set_and_for_files(tmp_path, capsys):
    write_scenes(tmp_path, 5, size=(320, 240))
    build(tmp_path, tmp_path / "data")
    capsys.readouterr()
    sheet = tmp_path / "sheet.html"
    built = ["data", f"--data_dir={tmp_path / 'data'}", "--split=train_s"]
    assert main([*built, f"--preview={sheet}", "--num=2"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("sorec train_s: 24 expressions on 3 photos\n")
    assert printed.endswith(f"{sheet}: 2 records to look at\n")
    assert sheet.read_text().count("<article") == 2
    assert main([*built, "--json"]) == 0
    from_build = json.loads(capsys.readouterr().out)
    files = [f"--annotations={tmp_path / 'trainS.json'}", f"--images={tmp_path / PHOTO_FOLDER}"]
    assert main(["data", *files, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == from_build


def test_the_command_refuses_what_it_cannot_do(tmp_path, capsys):
    for arguments, message in (
        ([], "say which data"),
        (["--annotations=a.json"], "say which data"),
        (["--annotations=a.json", "--images=b", "--split=val"], "give either"),
        (["--annotations=a.json", "--images=b", "--preview=sheet.txt"], "must end in .html"),
        (["--annotations=a.json", "--images=b", f"--preview={tmp_path}/no/s.html"], "there is no folder"),
        (["--annotations=a.json", "--images=b"], "annotation file a.json is missing"),
        ([f"--data_dir={tmp_path}", "--split=val", "--dataset=cars"], "there is no data set 'cars'"),
    ):
        assert main(["data", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_a_street_is_drawn_with_what_to_look_for_in_it(tmp_path, capsys):
    path = tmp_path / "street.png"
    assert main(["data", f"--draw={path}", "--scene=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    records = [record for number, record in MiniSource("val", 3).records if number == 2]
    assert len(lines) >= 3
    assert [line[28:].strip() for line in lines] == [record.expression for record in records]
    assert Image.open(path).size == (2048, 1536)
    assert main(["data", f"--draw={path}", "--scene=2", "--json"]) == 0
    targets = json.loads(capsys.readouterr().out)["targets"]
    assert targets[0] == {"expression": records[0].expression, "box": list(records[0].box_xyxy)}


def test_a_street_that_cannot_be_drawn_is_refused(tmp_path, capsys):
    assert main(["data", f"--draw={tmp_path / 'street.txt'}"]) == 2
    assert main(["data", f"--draw={tmp_path / 'street.png'}", "--scene=-1"]) == 2
    assert not list(tmp_path.iterdir())
    shown = capsys.readouterr().err
    assert "must end in one of" in shown
    assert "split val has scenes" in shown
