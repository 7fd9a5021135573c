"""The piza command on a detector trained for two steps: what it prints and writes, and how it refuses."""

import dataclasses
import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import piza_jax
from piza_jax.cli import main
from piza_jax.data.preprocess import Preprocessing
from piza_jax.data.scenes import draw_scene
from piza_jax.errors import PizaError
from piza_jax.grounder import open_model
from piza_jax.training import config as configs
from piza_jax.training import task
from piza_jax.training.writer import read_metrics
from tests import tiny_detector
from tests.test_task import ROOT

pytestmark = pytest.mark.slow

WORDS = "The red car in the left part of the street."


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Workdir of a run of two steps on one scene, evaluated on the way."""
    workdir = tmp_path_factory.mktemp("run")
    changes = ("data.num_photos=1", "data.photo_wh=(320,240)", "data.canvas_hw=(64,64)", "train.num_steps=2")
    config = configs.load_config(str(ROOT / "configs" / "scenes.py:smoke"), changes)
    with config.unlocked():
        config.model = ConfigDict(tiny_detector.model_config().to_dict())
        config.model.detector.bert.vocab_size = 256
        config.evaluation.update(every=1, num_records=3)
    task.train(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "street.png"
    draw_scene(0, (320, 240))[0].save(path)
    return path


def test_training_evaluates_the_whole_zoom(trained):
    evaluations = [line for line in read_metrics(trained) if "eval/mAcc" in line]
    assert [line["step"] for line in evaluations] == [1, 2]
    assert all(line["eval/count"] == 3 and 1 <= line["eval/mean_steps"] <= 5 for line in evaluations)


def test_ground_prints_draws_and_agrees_with_the_library(trained, photo, tmp_path, capsys):
    picture = tmp_path / "strip.png"
    common = ["ground", str(photo), WORDS, "--checkpoint", str(trained), "--max_steps", "2"]
    assert main([*common, "--save", str(picture)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("step 0: crop 0.0 0.0 320.0 240.0  box ")
    assert text.splitlines()[-1].startswith("box (x0 y0 x1 y1 px): ")
    assert Image.open(picture).size[0] > 600
    assert main([*common, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = piza_jax.load(trained, max_steps=2).ground(photo, WORDS)
    np.testing.assert_allclose(printed["box"], found.box, atol=1e-3)
    assert len(printed["steps"]) == len(found.steps) <= 2


def test_training_free_ground_takes_another_way(trained, photo, capsys):
    assert main(["ground", str(photo), WORDS, "--checkpoint", str(trained), "--training_free", "--json"]) == 0
    free = json.loads(capsys.readouterr().out)
    trained_way = piza_jax.load(trained).ground(photo, WORDS)
    assert free["steps"][0]["box"] != list(trained_way.steps[0].box)  # no zoom embedding


def test_ground_follows_a_beam(trained, photo, capsys):
    common = ["ground", str(photo), WORDS, "--checkpoint", str(trained), "--max_steps=2"]
    settings = {"beam": 2, "path_score": "mean_log", "nms_iou": 0.4, "backtrack": 0.5, "no_target_threshold": 1.0}
    common += [f"--{name}={value}" for name, value in settings.items()]
    assert main([*common, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = piza_jax.load(trained, max_steps=2, **settings).ground(photo, WORDS)
    np.testing.assert_allclose(printed["box"], found.box, atol=1e-3)
    assert printed["no_target"]
    assert found.no_target
    assert len(printed["alternatives"]) == len(found.alternatives) == 1
    np.testing.assert_allclose(printed["alternatives"][0]["box"], found.alternatives[0].box, atol=1e-3)
    assert main(common) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].startswith("other: ")
    assert lines[-2].startswith("no target: ")
    assert lines[-1].startswith("box (x0 y0 x1 y1 px): ")


def test_single_pass_looks_once_at_the_whole_photo(trained, photo, tmp_path, capsys):
    common = ["--checkpoint", str(trained), "--single_pass", "--json"]
    assert main(["ground", str(photo), WORDS, *common, "--save", str(tmp_path / "look.png")]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = piza_jax.load(trained, single_pass=True).ground(photo, WORDS)
    assert len(printed["steps"]) == len(found.steps) == 1
    assert printed["steps"][0]["crop"] == [0, 0, 320, 240]
    np.testing.assert_allclose(printed["box"], found.box, atol=1e-3)
    assert (tmp_path / "look.png").is_file()
    assert main(["evaluate", "--num_records", "3", *common]) == 0
    assert json.loads(capsys.readouterr().out)["scenes"]["all"]["mean_steps"] == 1


def test_detect_prints_and_draws_every_box(trained, photo, tmp_path, capsys):
    picture = tmp_path / "boxes.png"
    common = ["detect", str(photo), "A red car. A traffic light", "--checkpoint", str(trained)]
    common += ["--box_threshold", "0", "--text_threshold", "0", "--max_detections", "3"]
    assert main([*common, "--save", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("box (x0 y0 x1 y1 px): ") for line in lines[:3])
    assert lines[3] == "3 boxes above 0"
    assert Image.open(picture).size == (320, 240)
    assert np.abs(np.asarray(Image.open(picture)).astype(int) - np.asarray(Image.open(photo))).max() > 50
    assert main([*common, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["text"] == "A red car. A traffic light."
    found = piza_jax.load(trained).detect(photo, printed["text"], box_threshold=0, text_threshold=0, max_detections=3)
    assert [one["label"] for one in printed["detections"]] == list(found.labels)
    np.testing.assert_allclose([one["box"] for one in printed["detections"]], found.boxes, atol=1e-3)


def test_evaluate_writes_what_it_prints(trained, tmp_path, capsys):
    out, strips = tmp_path / "result.json", tmp_path / "a" / "strips"
    arguments = ["evaluate", "--checkpoint", str(trained), "--num_records", "3", "--output", str(out)]
    assert main([*arguments, "--strips", str(strips), "--num_strips", "2"]) == 0
    table = capsys.readouterr().out
    assert table.splitlines()[0].split()[:4] == ["split", "targets", "mAcc", "%"]
    stored = json.loads(out.read_text())
    overlaps = [one["iou"] for one in stored["predictions"]["scenes"]]
    assert len(overlaps) == 3
    failures = [one["failure"] for one in stored["predictions"]["scenes"]]
    assert [label is None for label in failures] == [iou >= 0.5 for iou in overlaps]
    counted = stored["scores"]["scenes"]["failures"]
    assert sum(counted.values()) == sum(failures.count(label) for label in counted) == 3 - failures.count(None)
    measured = stored["metrics"]["scenes"]["all"]
    assert measured["count"] == 3
    assert measured["mean_iou"] == pytest.approx(np.mean(overlaps), abs=1e-6)
    assert len(list(strips.glob("*.png"))) == 2
    last = [line for line in read_metrics(trained) if "eval/mean_iou" in line][-1]
    assert last["eval/mean_iou"] == pytest.approx(measured["mean_iou"], abs=1e-3)


def test_evaluate_writes_predictions_that_score_the_same(trained, tmp_path, capsys):
    common = ["evaluate", "--checkpoint", str(trained), "--num_records", "3", "--details", "--json"]
    lines, coco = tmp_path / "x.jsonl", tmp_path / "y.json"
    assert main([*common, "--output", str(lines), "--coco", str(coco)]) == 0
    printed = json.loads(capsys.readouterr().out)
    items = [json.loads(line) for line in lines.read_text().splitlines()]
    records = [
        {"image": "a.png", "id": one["id"], "ref": one["expression"], "bbox": [x, y, x1 - x, y1 - y]}
        for one in items
        for x, y, x1, y1 in [one["target"]]
    ]
    (tmp_path / "scenes.json").write_text(json.dumps(records))
    again = ["evaluate", "--annotations", str(tmp_path / "scenes.json"), "--details", "--json", "--predictions"]
    assert main([*again, str(lines)]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert scored["scores"]["scenes"]["failures"] == printed["scores"]["scenes"]["failures"]
    for name, value in printed["scores"]["scenes"]["details"]["all"]["all"].items():
        same = value if value is None else pytest.approx(value, rel=1e-5, abs=1e-6)
        assert scored["scores"]["scenes"]["details"]["all"]["all"][name] == same, name
    assert scored["metrics"]["scenes"]["all"] == pytest.approx(printed["metrics"]["scenes"]["all"], rel=1e-5, abs=1e-6)
    results = json.loads(coco.read_text())
    assert [one["image_id"] for one in results] == [one["id"] for one in items]
    assert main([*again, str(coco)]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["scenes"]["all"]["mean_iou"] == pytest.approx(
        printed["metrics"]["scenes"]["all"]["mean_iou"], rel=1e-5, abs=1e-6
    )


def test_evaluate_on_annotation_files(trained, photo, tmp_path, capsys):
    records = [{"image": photo.name, "bbox": [10, 20, 30, 10], "ref": WORDS, "id": 5}]
    (tmp_path / "mine.json").write_text(json.dumps(records))
    files = ["--annotations", str(tmp_path / "mine.json"), "--images", str(photo.parent)]
    assert main(["evaluate", "--checkpoint", str(trained), *files, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mine"]["all"]["count"] == 1


def test_evaluate_compares_methods_row_by_row(trained, tmp_path, capsys):
    out, strips = tmp_path / "result.json", tmp_path / "strips"
    words = ["single:48", "grid:2x3"]
    arguments = ["evaluate", "--checkpoint", str(trained), "--num_records", "3", "--output", str(out), "--json"]
    arguments += ["--strips", str(strips), "--num_strips", "1"]
    assert main([*arguments, *(f"--method={word}" for word in [*words, "single:48"])]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert list(rows) == [f"scenes {word}" for word in words]
    assert [row["all"]["mean_steps"] for row in rows.values()] == [1, 6]
    assert len(list(strips.glob("scenes_grid_2x3_*.png"))) == len(list(strips.glob("scenes_single_48_*.png"))) == 1
    stored = json.loads(out.read_text())["predictions"]
    assert [one["passes"] for one in stored["scenes grid:2x3"]] == [6, 6, 6]


def test_slices_are_grounded_alike_in_a_batch_and_by_the_command(trained, photo, capsys):
    word = "sliding:128:0.25:full:nmm:min_score=0.6"
    grounder = piza_jax.load(trained, method=word, batch_size=2)
    together = grounder.ground([photo, photo], ["The blue sign on the right.", WORDS])
    assert [found.passes for found in together] == [10, 10]  # 320 x 240 pixels in windows of 128, and the whole
    assert main(["ground", str(photo), WORDS, "--checkpoint", str(trained), "--method", word]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 0: crop ")
    assert lines[-1].endswith("of 10 views")
    printed = [float(value) for value in lines[-1].split()[6:10]]  # with one decimal
    np.testing.assert_allclose(printed, together[1].box, atol=0.06)


def test_a_single_pass_at_another_resolution_keeps_the_aspect_limits(trained):
    model = open_model(trained)
    released = dataclasses.replace(model, preprocessing=Preprocessing(800, 1333, std=(0.5, 0.5, 0.5)))
    for loaded, limits in ((model, (128, 128)), (released, (128, 213))):
        view = piza_jax.load(loaded, method="single:128").preprocessing
        assert (view.shortest_edge, view.longest_edge) == limits
        assert view.std == (loaded.preprocessing or view).std
    with pytest.raises(PizaError, match="the workdir model ships no tokenizer"):
        piza_jax.load(dataclasses.replace(model, tokenizer=None), method="single")


def refusal(capsys, *arguments):
    """The one line that the command prints when it refuses."""
    assert main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


def test_bad_photos(trained, photo, tmp_path, capsys):
    (tmp_path / "notes.jpg").write_text("not a photo at all")
    Image.open(photo).convert("RGB").save(tmp_path / "cut.jpg")
    data = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    end = [WORDS, "--checkpoint", trained]
    assert "cannot read the photo nowhere.jpg" in refusal(capsys, "ground", "nowhere.jpg", *end)
    assert "notes.jpg" in refusal(capsys, "ground", tmp_path / "notes.jpg", *end)
    assert "cut.jpg" in refusal(capsys, "ground", tmp_path / "cut.jpg", *end)


def test_bad_expressions(trained, photo, capsys):
    assert "empty" in refusal(capsys, "ground", photo, "  ", "--checkpoint", trained)
    assert "64" in refusal(capsys, "ground", photo, "car " * 100, "--checkpoint", trained)


def two_splits(photo, tmp_path):
    for name in ("a", "b"):
        record = {"image": photo.name, "bbox": [10, 20, 30, 10], "ref": WORDS, "id": 5}
        (tmp_path / f"{name}.json").write_text(json.dumps([record]))
    return [f"--annotations={tmp_path}/a.json", f"--annotations={tmp_path}/b.json", f"--images={photo.parent}"]


def test_bad_options(trained, photo, tmp_path, capsys):
    start = ["ground", photo, WORDS, "--checkpoint"]
    assert "it has neither piza.json" in refusal(capsys, *start, tmp_path)
    assert "zoom.beam is 0" in refusal(capsys, *start, trained, "--beam=0")
    assert "zoom.max_steps is 0" in refusal(capsys, *start, trained, "--max_steps=0")
    assert "must end in one of" in refusal(capsys, *start, trained, "--save=strip.txt")
    assert "there is no folder" in refusal(capsys, *start, trained, f"--save={tmp_path}/no/strip.png")
    assert "unknown argument '--zooms'" in refusal(capsys, *start, trained, "--zooms")
    assert "cannot read nowhere.json" in refusal(capsys, *start, trained, "--zoom=nowhere.json")
    assert "choose one" in refusal(capsys, *start, trained, "--single_pass", "--training_free")
    start = ["detect", photo, WORDS, "--checkpoint", trained]
    assert "box_threshold is 3.0" in refusal(capsys, *start, "--box_threshold=3")
    assert "max_detections is 0" in refusal(capsys, *start, "--max_detections=0")
    assert "must end in one of" in refusal(capsys, *start, "--save=boxes.txt")
    assert "unknown argument '--max_steps=3'" in refusal(capsys, *start, "--max_steps=3")
    start = ["evaluate", "--checkpoint", trained]
    assert "whose answers" in refusal(capsys, "evaluate")
    assert "--format is for" in refusal(capsys, *start, "--format=xywh")
    assert "there is no folder" in refusal(capsys, *start, f"--coco={tmp_path}/no/y.json")
    assert "one split at a time" in refusal(capsys, *start, "--coco=y.json", *two_splits(photo, tmp_path))
    assert "--annotations needs --images" in refusal(capsys, *start, "--annotations=a.json")
    assert "give either" in refusal(capsys, *start, "--annotations=a", "--images=b", "--split=val")
    assert "needs --config.data.data_dir" in refusal(capsys, *start, "--split=val")
    start = ["train", "--config", ROOT / "configs" / "scenes.py", "--workdir", tmp_path]
    assert "unknown config key 'train.batchsize'" in refusal(capsys, *start, "--config.train.batchsize=4")
    assert "unknown argument '--batch_size=4'" in refusal(capsys, *start, "--batch_size=4")


def test_bad_methods_are_refused_before_anything_is_read(capsys):
    start = ["ground", "photo.png", WORDS, "--checkpoint=nowhere"]
    assert "single_pass and method are 2 ways to look" in refusal(capsys, *start, "--single_pass", "--method=piza")
    assert "there is no method 'tiles'" in refusal(capsys, *start, "--method=tiles")
    start = ["evaluate", "--checkpoint=nowhere", "--annotations=a.json", "--images=b"]
    assert "unknown option 'nsm'" in refusal(capsys, *start, "--method=piza", "--method=grid:2x2:nsm")


def test_checkpoint_of_another_configuration(trained, photo, tmp_path, capsys):
    config = configs.from_json((trained / "config.json").read_text())
    with config.unlocked():
        config.model.adapter_dim = 16
    for item in trained.iterdir():
        if item.name != "config.json":
            (tmp_path / item.name).symlink_to(item)
    (tmp_path / "config.json").write_text(configs.to_json(config))
    message = refusal(capsys, "ground", photo, WORDS, "--checkpoint", tmp_path)
    assert "belongs to another configuration" in message


def test_an_interrupted_command_ends_with_one_line(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("piza_jax.cli._version", interrupted)
    assert main(["version"]) == 130
    assert capsys.readouterr() == ("", "piza: interrupted\n")


def test_version(capsys):
    assert main(["version"]) == 0
    assert capsys.readouterr().out.strip() == piza_jax.__version__


@pytest.mark.parametrize(("batch", "devices"), [(4, 2), (3, 1)])
def test_a_cpu_is_divided_as_far_as_the_batch_is(batch, devices, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("piza_jax.cpu.split", asked.append)
    monkeypatch.setattr("piza_jax.training.task.train", lambda *_: None)
    words = [f"--config.train.batch_size={batch}", f"--workdir={tmp_path}"]
    assert main(["train", "--config=configs/mini.py", *words]) == 0
    assert asked == [devices]
