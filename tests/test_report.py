"""The report page: what it says, that nothing in it is taken for markup, and how a browser shows it."""

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from piza_jax.cli import main
from piza_jax.evaluation import report_cases, report_charts, report_page, scoring
from piza_jax.evaluation.failures import FAILURES
from piza_jax.evaluation.report_text import details_text
from piza_jax.piza.results import Grounding, Step
from tests.browser import screenshot
from tests.fake_detector import loaded, write_records

HOSTILE = "The <script>alert(1)</script> & \"quoted\" <img src='http://example.org/x.png'> cone"
WHOLE, AROUND = (0.0, 0.0, 800.0, 600.0), (200.0, 100.0, 500.0, 400.0)
TARGET = (300.0, 200.0, 340.0, 230.0)
NEAR, LOOSE, AWAY = (302.0, 201.0, 341.0, 231.0), (290.0, 190.0, 345.0, 240.0), (400.0, 300.0, 440.0, 330.0)
VOID = {"meta", "img", "line", "link", "br"}


class Page(HTMLParser):
    """Elements and text of a page; every element must be closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def tags(self):
        return {tag for tag, _ in self.elements}

    def images(self):
        return [attributes for tag, attributes in self.elements if tag == "img"]


def answer(box, expression="The yellow cone.", score=0.5):
    zoom = Grounding(expression, box, score, (Step(WHOLE, AROUND, 0.4, 0, 0.1), Step(AROUND, box, score, 0.6, 0.9)))
    return scoring.Answer(TARGET, len(expression.split()), zoom, [box], 2)


def section(answers, name="val", photos=True):
    score = scoring.score(answers)
    rows = [(10 + number, f"{number}.png", one) for number, one in enumerate(answers)]
    grey = np.full((600, 800, 3), 128, np.uint8)
    read = (lambda number: grey) if photos else None
    return report_cases.Section(name, score, report_cases._cases(rows, score), read)


@pytest.fixture(scope="module")
def hostile():
    return section([answer(NEAR, HOSTILE), answer(LOOSE), answer(AWAY, score=0.9)], "val <b>bold</b>")


def test_numbers_are_those_of_the_details(hostile):
    text = Page(report_page.page([hostile])).text
    details = details_text({"val": hostile.score})
    for name, title in (("mAcc", "mAcc %"), ("Acc50", "Acc50 %"), ("mean_iou", "mean IoU %")):
        value = hostile.score.details["all"]["all"][name]
        low, high = hostile.score.intervals[name]
        assert f"{100 * value:.1f}{100 * low:.1f} to {100 * high:.1f}" in text
        assert re.search(rf"{name} +{100 * value:.1f} +{100 * low:.1f} +{100 * high:.1f}", details)
        assert title in text
    for row in re.findall(r"^val +(.*)$", details.split("\n\n")[0], re.MULTILINE):
        cells = re.split(r"  +", row)
        assert "".join(cells) in text.replace("\n", ""), row
    assert "1 (50.0 %)" in text
    assert all(name in text for name in FAILURES)
    assert "2 of 3 answers are wrong" in text


def test_views_are_those_of_slices_and_of_all_paths():
    found = [answer(NEAR), answer(LOOSE), answer(AWAY)]
    many = dataclasses.replace(found[0], grounding=dataclasses.replace(found[0].grounding, passes=9))
    unknown = dataclasses.replace(found[1], grounding=Grounding("a cone", LOOSE, 0.5, ()), num_steps=0)
    assert "2.004.333" in Page(report_page.page([section([many, *found[:2]])])).text  # steps, views, records
    assert "2.009.002" in Page(report_page.page([section([dataclasses.replace(many, num_steps=2), unknown])])).text
    assert "--2" in Page(report_page.page([section([unknown, unknown])])).text


def test_nothing_of_the_records_is_markup_and_nothing_comes_from_elsewhere(hostile):
    text = report_page.page([hostile, section([answer(NEAR)], photos=False)])
    page = Page(text)
    assert not page.tags() & {"script", "link", "iframe", "object", "b><b", "base"}
    assert HOSTILE in page.text
    assert "val <b>bold</b>" in page.text
    assert [one["src"][:23] for one in page.images()] == ["data:image/jpeg;base64,"] * len(page.images())
    assert len(page.images()) == 9  # three answers, each of them among the best, the worst and the random ones
    assert f"Zoom to: {HOSTILE}" in {one["alt"] for one in page.images()}
    for _, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "data", "action", "srcset"):
                assert value.startswith(("data:image/jpeg", "#part")), value
            elif name not in ("alt", "aria-label"):
                assert "://" not in (value or ""), (name, value)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style
    targets = {attributes["href"][1:] for tag, attributes in page.elements if tag == "a"}
    assert targets == {attributes["id"] for tag, attributes in page.elements if tag == "section"}
    assert "default-src 'none'" in text


def test_best_worst_and_random_answers():
    boxes = [NEAR, AWAY, TARGET, AWAY, LOOSE, AWAY]
    found = section([answer(box, score=number / 10) for number, box in enumerate(boxes)])
    chosen = report_cases.choose(found.cases, 3, seed=1)
    assert chosen["best"] == [2, 0, 4]
    assert chosen["worst"] == [5, 3, 1]
    assert len(set(chosen["random"])) == 3
    assert chosen == report_cases.choose(found.cases, 3, seed=1)
    assert any(report_cases.choose(found.cases, 3, seed)["random"] != chosen["random"] for seed in range(2, 9))
    assert [len(numbers) for numbers in report_cases.choose(found.cases, 9).values()] == [6, 6, 6]
    assert [found.cases[i].failure for i in (2, 4, 5)] == [None, "loose box", "look-alike"]


def test_a_photo_that_cannot_be_drawn_on_costs_its_picture_only():
    outside = (2000.0, 100.0, 2040.0, 130.0)
    page = Page(report_page.page([section([answer(outside, score=float("nan")), answer(NEAR)])]))
    assert "no picture: box" in page.text
    assert "score nan" not in page.text
    assert len(page.images()) == 3


def test_bars_stand_where_accuracies_count():
    bars = report_charts.iou_bars([0.0, 0.049, 0.05, 0.5, 0.55, 0.9999, 1.0])
    assert [number for number, bar in enumerate(bars) for _ in range(bar.number)] == [0, 0, 1, 10, 11, 19, 19]
    assert [bar.kind for bar in bars] == ["bad"] * 10 + ["good"] * 10
    assert [bar.label for bar in bars if bar.label] == ["0.00", "0.25", "0.50", "0.75"]
    steps = report_charts.step_bars([0, 2, 2, 4])
    assert [(bar.label, bar.number) for bar in steps] == [("1", 0), ("2", 2), ("3", 0), ("4", 1)]
    drawn = Page(report_charts.columns(steps, "a < b"))
    tall = [float(one["height"]) for tag, one in drawn.elements if tag == "rect"]
    assert len(tall) == 2
    assert tall[0] == pytest.approx(2 * tall[1], abs=0.1)
    lying = Page(
        report_charts.rows([report_charts.Bar("x & y", 3, "bad", ""), report_charts.Bar("z", 0, "bad", "")], "")
    )
    assert "x & y3 (100.0 %)" in lying.text
    assert "z0 (0.0 %)" in lying.text


@pytest.fixture
def files(tmp_path):
    """Two records, the photo of one, and predictions of both."""
    Image.new("RGB", (800, 600), (100, 120, 140)).save(tmp_path / "a.png")
    box = [TARGET[0], TARGET[1], TARGET[2] - TARGET[0], TARGET[3] - TARGET[1]]
    records = [{"image": name, "bbox": box, "ref": HOSTILE, "id": i} for i, name in enumerate(("a.png", "b.png"))]
    (tmp_path / "val.json").write_text(json.dumps(records))
    found = [{"id": 0, "box": NEAR, "steps": 2}, {"id": 1, "box": AWAY}]
    (tmp_path / "found.jsonl").write_text("\n".join(map(json.dumps, found)))
    return ["evaluate", f"--predictions={tmp_path}/found.jsonl", f"--annotations={tmp_path}/val.json"]


def test_report_of_a_file_with_and_without_photos(files, tmp_path, capsys):
    folder = tmp_path / "new" / "report"
    assert main([*files, f"--report={folder}"]) == 0
    without = Page((folder / "index.html").read_text(encoding="utf-8"))
    assert without.images() == []
    assert "steps unknown" in without.text
    assert "Known of 1 of 2 records" in without.text
    assert main([*files, f"--report={folder}", f"--images={tmp_path}"]) == 0
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    assert len(page.images()) == 3
    assert page.text.count("no picture: the photo") == 3
    assert [item.name for item in folder.iterdir()] == ["index.html"]
    capsys.readouterr()
    assert main([*files, f"--report={tmp_path}/val.json"]) == 2
    assert "cannot make the folder" in capsys.readouterr().err


def test_report_of_a_model_shows_its_zooms(tmp_path, monkeypatch):
    zoom = {"canvas_hw": (96, 96), "min_crop_px": 16.0, "crop_method": "dense", "max_steps": 2}
    monkeypatch.setattr("piza_jax.grounder.open_model", lambda *_, **__: loaded(**zoom))
    options = write_records(tmp_path, [(300, 200), (200, 300), (256, 256)])
    command = ["evaluate", "--checkpoint=any", *options, "--batch_size=4", "--method=piza", "--method=single"]
    command += ["--max_steps=1", "--beam=1", f"--curve={tmp_path}/curve"]
    assert main([*command, f"--report={tmp_path}/report", f"--output={tmp_path}/out.json"]) == 0
    page = Page((tmp_path / "report" / "index.html").read_text(encoding="utf-8"))
    plots = [image for image in page.images() if image["src"].startswith("data:image/svg+xml;base64,")]
    assert base64.b64decode(plots[0]["src"].split(",")[1]) == (tmp_path / "curve" / "curve.svg").read_bytes()
    for row in (tmp_path / "curve" / "curve.md").read_text().splitlines()[-2:]:
        assert "".join(cell.strip() for cell in row.strip("|").split("|")) in page.text
    assert {attributes["href"] for tag, attributes in page.elements if tag == "a"} == {"#part0", "#part1"}
    assert len(page.images()) == 1 + 2 * 3 * 3
    stored = json.loads((tmp_path / "out.json").read_text())
    for name in ("made piza", "made single"):
        assert name in page.text
        assert f"{100 * stored['metrics'][name]['all']['mAcc']:.1f}" in page.text
    for one in stored["predictions"]["made piza"]:
        assert f"record {one['id']} \u00b7 {one['photo']}" in page.text
    strip = Image.open(io.BytesIO(base64.b64decode(page.images()[1]["src"].split(",")[1])))
    assert strip.width > 2 * report_cases.STRIP_HEIGHT
    assert strip.height > report_cases.STRIP_HEIGHT


@pytest.mark.slow
def test_a_browser_shows_it_in_light_and_dark_and_on_a_narrow_screen(hostile, tmp_path):
    path = report_page.save_page([hostile], tmp_path / "report")
    grounds = {False: (0xF4, 0xF5, 0xF6), True: (0x14, 0x17, 0x1A)}
    good = {False: (0x00, 0x80, 0x5F), True: (0x2F, 0xB9, 0x8D)}
    for dark, width, height in ((False, 1000, 1900), (True, 1000, 1900), (False, 520, 2900)):
        seen = screenshot(path, tmp_path, width, height, dark)
        assert tuple(seen[5, 5]) == grounds[dark]
        bars = np.argwhere(np.all(seen == good[dark], axis=2))
        assert len(bars) > 500  # the bar of the right box, and its label
        grey = np.argwhere(np.all(np.abs(seen.astype(int) - 128) <= 2, axis=2))
        assert len(grey) > 20_000  # film strips
        assert grey[:, 1].max() < width - 10  # nothing sticks out to the right
        assert tuple(seen[5, -5]) == grounds[dark]
