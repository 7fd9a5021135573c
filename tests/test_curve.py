"""Accuracy against cost: which ways are measured, how, and what is written."""

import json
import mmap
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import jax
import numpy as np
import pytest

import piza_jax
from piza_jax import cli_curve
from piza_jax.cli import main
from piza_jax.data.records import RecordSource, read_annotations
from piza_jax.errors import PizaError
from piza_jax.evaluation import cost, curve, scoring
from piza_jax.evaluation.cost import Meter
from piza_jax.evaluation.curve_chart import Mark, chart, colours_of, place_labels, time_ticks
from piza_jax.evaluation.evaluate import predictions
from tests import compilations
from tests.fake_detector import draw_patches, loaded, write_records

SIZES = [(600, 400), (500, 500), (320, 480), (640, 360), (700, 500)]
ZOOM = {"canvas_hw": (96, 96), "min_crop_px": 16.0, "crop_method": "dense", "max_steps": 4}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Options of the command, and the records."""
    folder = tmp_path_factory.mktemp("records")
    options = write_records(folder, SIZES)
    return options, RecordSource(read_annotations(folder / "made.json"), folder)


def open_grounder(way):
    return piza_jax.load(loaded(**ZOOM), method=way.word, batch_size=2, **way.zoom)


def test_the_first_zoom_is_swept_and_the_others_are_measured_once():
    words = curve.default_words(True, (96, 128), 800)
    assert words == ["piza", "training_free", "single", "single:1600", "grid:2x2:full", "sliding:128:0.2:full"]
    assert curve.default_words(False, (96, 128), 800) == words[1:]
    ways = curve.ways_of([*words, "single"], 2, (1, 3))
    assert [way.label for way in ways] == ["piza, 1 step", "piza, 2 steps", "piza, beam 3", *words[1:]]
    assert [way.zoom for way in ways[:4]] == [
        {"max_steps": 1, "beam": 1},
        {"max_steps": 2, "beam": 1},
        {"max_steps": 2, "beam": 3, "look_back": ()},
        {},
    ]
    assert [way.family for way in ways[:4]] == ["piza steps", "piza steps", "piza beam", ""]
    assert [way.word for way in curve.ways_of(["grid:2", "training_free"], 1, ())] == ["grid:2", "training_free"]


def test_a_beam_that_looks_back_is_a_way_of_its_own():
    ways = curve.ways_of(["single", "piza"], 1, (2, 3, 5), look_back=[0.8, 0.5])
    assert [way.label for way in ways[2:]] == [
        "piza, beam 2", "piza, beam 3", "piza, beam 5", "piza, beam 3, looking back"
    ]  # fmt: skip
    assert ways[-1].zoom == {"max_steps": 1, "beam": 3, "look_back": (0.8, 0.5)}
    assert ways[-1].family == "piza looking back"
    assert open_grounder(ways[-1]).zoom_config.look_back == (0.8, 0.5)
    assert curve.ways_of(["piza"], 1, (1, 4), look_back=[0.5])[-1].zoom["beam"] == 4
    assert [way.label for way in curve.ways_of(["piza"], 1, (1,), look_back=[0.5])] == ["piza, 1 step"]


def test_canvases_are_a_family_of_the_swept_zoom():
    ways = curve.ways_of(["single", "piza", "training_free"], 2, (3,), [(64, 64), (48, 80), (64, 64)])
    assert [way.label for way in ways[3:]] == ["piza, beam 3", "piza, canvas 64", "piza, canvas 48x80", "training_free"]
    assert [way.family for way in ways[4:6]] == ["piza canvas"] * 2
    assert ways[5].zoom == {"max_steps": 2, "beam": 1, "canvas_hw": (48, 80)}
    assert open_grounder(ways[5]).zoom_config.canvas_hw == (48, 80)
    assert cli_curve.canvases_of("512, 480x640") == [(512, 512), (480, 640)]
    with pytest.raises(PizaError, match="add --method=piza or --method=training_free"):
        curve.ways_of(["single"], 2, (), [(64, 64)])
    for text in ("512;768", "0", "", "12x", "-5"):
        with pytest.raises(PizaError, match=r"--curve_canvases=.* is no size; give sides in pixels"):
            cli_curve.canvases_of(text)


def test_unknown_methods_are_refused():
    with pytest.raises(PizaError, match="there is no method 'tiles'"):
        curve.ways_of(["tiles"], 2)


@pytest.fixture(scope="module")
def points(files):
    ways = curve.ways_of(["piza", "single", "grid:2x2:full"], 2, (2,))
    ways = [*ways[:2], curve.Way("piza, beam 2", "piza", {"max_steps": 4, "beam": 2}, "piza beam"), *ways[3:]]
    seen = []
    points = curve.sweep(ways, open_grounder, files[1], report=seen.append)
    assert seen == points
    return {point.label: point for point in points}


def test_points_are_what_a_plain_evaluation_measures(points, files):
    assert list(points) == ["piza, 1 step", "piza, 2 steps", "piza, beam 2", "single", "grid:2x2:full"]
    for label, zoom in (("piza, beam 2", {"beam": 2}), ("piza, 2 steps", {"max_steps": 2})):
        found = list(predictions(open_grounder(curve.Way("", "piza", zoom)), files[1]))
        point = points[label]
        assert point.count == len(found) == 5
        assert point.measures["mean_iou"] == pytest.approx(np.mean([one.iou for one in found]), abs=1e-6)
        assert point.measures["Acc50"] == pytest.approx(np.mean([one.iou >= 0.5 for one in found]))
        assert point.passes == pytest.approx(np.mean([one.grounding.passes for one in found]))
    assert points["piza, beam 2"].measures["Acc50"] > points["piza, 2 steps"].measures["Acc50"]
    assert [points[label].passes for label in ("piza, 1 step", "single", "grid:2x2:full")] == [1, 1, 5]
    for point in points.values():
        low, high = point.intervals["mAcc"]
        assert 0 <= low <= point.measures["mAcc"] <= high <= 1
        assert point.ms > 0
        assert point.memory > 10e6
        assert point.memory_of == "process"


def test_time_is_measured_without_compilation():
    grounder = open_grounder(curve.Way("", "piza"))
    photo, texts = draw_patches(0, 600, 400)[0], ["red patch here", "green patch here"]
    meter, start = Meter(grounder), time.perf_counter()
    found = meter.ground([photo, photo], texts)
    whole = 1000 * (time.perf_counter() - start)
    assert meter.count == 2
    assert meter.ms < whole / 4  # the first call compiles for seconds, the second one is measured
    assert [one.box for one in found] == [one.box for one in grounder.ground([photo, photo], texts)]
    first, start = meter.seconds, time.perf_counter()
    assert compilations.during(lambda: meter.ground([photo], texts[:1])) > 0  # another batch size
    assert meter.count == 3
    assert meter.seconds - first < (time.perf_counter() - start) / 4
    assert compilations.during(lambda: meter.ground([photo, photo], texts)) == 0


class Device:
    """A device that counts its memory."""

    device_kind = "counting device"

    def __init__(self, *peaks):
        self.peaks = list(peaks)

    def memory_stats(self):
        return {"peak_bytes_in_use": self.peaks.pop(0)}


class Still:
    def ground(self, photos, texts):
        return list(texts)


def test_memory_is_that_of_the_device_where_it_counts(monkeypatch):
    device = Device(100, 100, 100, 300, 300, 300)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    meter = Meter(Still())
    meter.ground([None], ["a"])
    assert meter.memory == cost.Memory(100, "device", bound=True)  # another one before it may have needed that much
    meter.ground([None], ["a"])
    assert meter.memory == cost.Memory(300, "device", bound=False)
    meter.ground([None], ["a"])
    assert meter.memory == cost.Memory(300, "device", bound=False)


@pytest.mark.skipif(not cost._CLEAR.exists(), reason="the peak of a process can be set back on Linux only")
def test_memory_of_a_process_is_that_of_the_call(monkeypatch):
    class Hungry(Still):
        def ground(self, photos, texts):
            with mmap.mmap(-1, 150_000_000) as fresh:  # numpy may be given memory that malloc kept resident
                for page in range(0, len(fresh), mmap.PAGESIZE):
                    fresh[page] = 1
            return list(texts)

    large, small = Meter(Hungry()), Meter(Still())
    large.ground([None], ["a"])
    small.ground([None], ["a"])
    assert large.memory.peak - small.memory.peak > 100e6
    assert not small.memory.bound
    monkeypatch.setattr(cost, "_CLEAR", cost._CLEAR / "nowhere")
    small = Meter(Still())
    small.ground([None], ["a"])
    assert small.memory.bound


def test_table_figure_and_numbers_are_written(points, tmp_path):
    curve.save(list(points.values()), "val <b>", tmp_path)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["curve.json", "curve.md", "curve.svg"]
    stored = json.loads((tmp_path / "curve.json").read_text())
    assert stored["split"] == "val <b>"
    assert [row["label"] for row in stored["points"]] == list(points)
    assert stored["points"][2]["ms"] == points["piza, beam 2"].ms
    rows = (tmp_path / "curve.md").read_text().splitlines()[-5:]
    for row, point in zip(rows, points.values(), strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[0] == point.label
        assert float(cells[1].split()[0]) == pytest.approx(100 * point.measures["mAcc"], abs=0.051)
        assert float(cells[3]) == pytest.approx(point.ms, abs=0.051)
        assert float(cells[4]) == pytest.approx(point.passes, abs=0.0051)
    texts = [item.text for item in ElementTree.parse(tmp_path / "curve.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert all(texts.count(label) == 2 for label in points)  # one panel of mAcc, one of Acc50
    assert any(text.startswith("5 records of val <b>, ") for text in texts)
    with pytest.raises(PizaError, match="at least one way"):
        curve.save([], "val", tmp_path)


def test_marks_stand_at_their_time_and_share():
    marks = [Mark(str(i), "zoom", 10.0**i, 0.5 + 0.2 * i, 0.1, 0.9) for i in range(3)]
    dots = [item.attrib for item in ElementTree.fromstring(chart({"mAcc": marks}, "")).iter() if "cx" in item.attrib]
    x, y = ([float(dot[axis]) for dot in dots] for axis in ("cx", "cy"))
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)  # a log axis
    assert y[0] - y[1] == pytest.approx(y[1] - y[2], abs=0.2)
    assert len({dot["fill"] for dot in dots}) == 1
    assert len(set(colours_of([mark._replace(family=mark.label) for mark in marks]).values())) == 3
    assert time_ticks(13, 130) == [10, 20, 50, 100, 200]
    assert time_ticks(5, 5) == [5, 10]
    assert time_ticks(0.03, 0.07) == pytest.approx([0.02, 0.05, 0.1])


def test_labels_of_near_marks_lie_apart():
    places = [(100.0 + 4 * i, 100.0 + 2 * i) for i in range(5)]
    labels = place_labels(["a label"] * 5, places, (0, 0, 400, 300))
    for i, (left, base) in enumerate(labels):
        for other_left, other_base in labels[:i]:
            assert abs(left - other_left) > 7 * 6 or abs(base - other_base) >= 12
    ((left, _),) = place_labels(["a long label at the edge"], [(395.0, 100.0)], (0, 0, 400, 300))
    assert left + 6 * 24 < 395


def test_the_command_measures_what_is_asked_for(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("piza_jax.grounder.open_model", lambda *_, **__: loaded(**ZOOM))
    canvases, measure = [], curve.measure

    def watched(way, grounder, *rest):
        canvases.append(grounder.zoom_config.canvas_hw)
        return measure(way, grounder, *rest)

    monkeypatch.setattr(curve, "measure", watched)
    command = ["evaluate", "--checkpoint=any", *files[0], "--num_records=2", f"--curve={tmp_path}/new/curve"]
    options = ["--method=piza", "--method=single", "--max_steps=1", "--beam=2", "--curve_canvases=64x80"]
    assert main([*command, *options]) == 0
    labels = ["piza, 1 step", "piza, beam 2", "piza, beam 2, looking back", "piza, canvas 64x80", "single"]
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in printed] == labels
    assert printed == (tmp_path / "new" / "curve" / "curve.md").read_text().splitlines()[-5:]
    stored = json.loads((tmp_path / "new" / "curve" / "curve.json").read_text())
    assert (stored["split"], [row["count"] for row in stored["points"]]) == ("made", [2] * 5)
    assert [row["passes"] for row in stored["points"]] == [1, 1, 5, 1, 1]
    families = [row["family"] for row in stored["points"]]
    assert families == ["piza steps", "piza beam", "piza looking back", "piza canvas", ""]
    assert canvases[:4] == [(96, 96), (96, 96), (96, 96), (64, 80)]
    other = tmp_path / "other.json"
    other.write_text("[]")
    for more, words in (
        ([f"--output={tmp_path}/x.json"], "leave out --output"),
        (["--json"], "leave out --json"),
        (["--predictions=x"], "leave out --checkpoint"),
        (["--curve_canvases=64x"], "'64x' is no size"),
        ([f"--annotations={other}"], "the annotations are empty"),
    ):
        assert main([*command, *more]) == 2
        assert words in capsys.readouterr().err
    other.write_text(Path(files[0][0].partition("=")[2]).read_text())
    assert main([*command, f"--annotations={other}"]) == 2
    assert "one split at a time" in capsys.readouterr().err
    assert sorted(item.name for item in tmp_path.iterdir()) == ["new", "other.json"]


def test_without_a_method_the_command_measures_all_ways(files, tmp_path, monkeypatch):
    monkeypatch.setattr("piza_jax.grounder.open_model", lambda *_, **__: loaded(**ZOOM))
    command = ["evaluate", "--checkpoint=any", *files[0], "--num_records=1", f"--curve={tmp_path}/curve"]
    assert main([*command, "--max_steps=1"]) == 0
    points = json.loads((tmp_path / "curve" / "curve.json").read_text())["points"]
    zooms = ["piza, 1 step", *(f"piza, beam {beam}" for beam in curve.BEAMS)]
    others = curve.default_words(True, ZOOM["canvas_hw"], 96)[1:]
    assert [point["label"] for point in points] == [*zooms, "piza, beam 3, looking back", *others]
    assert all(point["count"] == 1 and point["ms"] > 0 for point in points)


def test_no_records_are_refused_by_name():
    with pytest.raises(PizaError, match="nothing to evaluate"):
        next(predictions(open_grounder(curve.Way("", "piza")), []))
    with pytest.raises(PizaError, match="nothing to score"):
        scoring.score([])
