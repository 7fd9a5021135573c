"""Looking back at the ends of a beam in wider views: what is seen there, and which path it lets win."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import piza_jax
from piza_jax import PizaError
from piza_jax.cli import main
from piza_jax.data.records import RecordSource, read_annotations
from piza_jax.evaluation import tune
from piza_jax.evaluation.evaluate import predictions
from piza_jax.piza import look_back
from piza_jax.piza.zoom_config import ZoomConfig
from tests.fake_detector import PatchDetector, _found, loaded, write_records

ZOOM = {"canvas_hw": (96, 96), "min_crop_px": 16.0, "crop_method": "dense", "max_steps": 3}
SIDES = (0.95, 0.9)


class Scripted(nnx.Module):
    """Finds the same boxes in every view, with scores that depend on the view's brightness."""

    def __init__(self, boxes, logits):
        self.boxes, self.logits = nnx.Param(jnp.array(boxes)), nnx.Param(jnp.array(logits))

    def detect(self, images, valid_hw, text, progress=None):
        bright = jnp.mean(images, axis=(1, 2, 3))[:, None] + progress[:, None] + text[:, None]
        boxes = jnp.broadcast_to(self.boxes[...], (len(images), *self.boxes[...].shape))
        return _found(self.logits[...] * bright, boxes)


def test_shares_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    sizes, k = np.array([[200, 300], [240, 150]], np.int32), 3
    photos = rng.integers(0, 255, (2, 240, 300, 3), np.uint8)
    low = rng.uniform(0, 0.8, (2, k, 2)) * sizes[:, None, ::-1]
    ends = np.concatenate([low, low + rng.uniform(5, 25, low.shape)], -1).astype(np.float32)
    found = rng.uniform([0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.6, 0.6], (12, 4)).astype(np.float32)
    logits = rng.normal(size=12).astype(np.float32)
    text = rng.normal(size=2 * k).astype(np.float32)
    config = ZoomConfig(**ZOOM, beam=k, look_back=(0.8, 0.5))
    model = Scripted(found, logits)

    def flat(view, valid_hw):
        return view.astype(jnp.float32) * 0 + valid_hw[:, :1, None, None]  # brightness is the height of the content

    shares = look_back.log_shares(model, jnp.array(ends), photos, sizes, jnp.array(text), config, flat)
    expected = np.zeros((2, k))
    for row, (height, width) in enumerate(sizes):
        for path in range(k):
            x0, y0, x1, y1 = ends[row, path]
            centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
            for side in config.look_back:
                size = side * np.array([width, height])
                corner = np.clip(centre - size / 2, 0, [width - size[0], height - size[1]])
                progress = np.log(1 / side) / np.log(np.sqrt(width * height) / np.sqrt((x1 - x0) * (y1 - y0)))
                content = round(96 * min(1, height / width))  # of the photo's shape on a square canvas
                scores = 1 / (1 + np.exp(-logits * (content + progress + text[row * k + path])))
                here, elsewhere = 0.0, 0.0
                for box, score in zip(found, scores, strict=True):
                    low, high = corner + (box[:2] - box[2:] / 2) * size, corner + (box[:2] + box[2:] / 2) * size
                    if (low <= centre).all() and (centre <= high).all():
                        here = max(here, score)
                    else:
                        elsewhere = max(elsewhere, score)
                odds = [np.log(max(p, 1e-12)) - np.log(max(1 - p, 1e-12)) for p in (here, elsewhere)]
                expected[row, path] += -np.logaddexp(0, odds[1] - odds[0]) / len(config.look_back)
    np.testing.assert_allclose(shares, expected, rtol=2e-3, atol=1e-3)
    assert np.ptp(expected) > 1


class Tempted(PatchDetector):
    """Right only where the patch asked for and its decoy are both in sight, but for the first look, which is wrong."""

    def detect(self, images, valid_hw, text, progress=None):
        boxes, tops = [], []
        for channel in (text.channel, (text.channel + 1) % 3):
            box, top, _ = self.find(images, valid_hw, channel, progress)
            boxes.append(jnp.where(jnp.isfinite(box), box, 0.5))
            tops.append(top > 60)
        both, first = tops[0] & tops[1], progress < 0.01
        target = jnp.where(tops[0], jnp.where(both, 0.7, 0.6), 0.02)
        decoy = jnp.where(tops[1], jnp.where(both, jnp.where(first, 0.8, 0.3), 0.9), 0.02)
        scores = jnp.stack([target, decoy], axis=1)
        return _found(jnp.log(scores / (1 - scores)), jnp.stack(boxes, axis=1))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    return write_records(folder, [(300 + 10 * n, 240) for n in range(6)]), RecordSource(
        read_annotations(folder / "made.json"), folder
    )


def open_grounder(zoom):
    return piza_jax.load(loaded(Tempted, margin=1.0, **ZOOM), batch_size=8, **zoom)


def test_a_beam_that_looks_back_finds_what_no_path_score_tells(records):
    found = {}
    for name, zoom in {
        "greedy": {},
        "beam": {"beam": 2},
        "back": {"beam": 2, "look_back": SIDES, "look_back_weight": 2.0},
        "weightless": {"beam": 2, "look_back": SIDES, "look_back_weight": 0.0},
        "one path": {"look_back": SIDES},
    }.items():
        found[name] = list(predictions(open_grounder(zoom), records[1]))
    iou = {name: np.array([one.iou for one in many]) for name, many in found.items()}
    assert iou["greedy"].max() < 0.1
    assert iou["beam"].max() < 0.1
    assert iou["back"].min() > 0.5
    np.testing.assert_array_equal(iou["weightless"], iou["beam"])
    np.testing.assert_array_equal(iou["one path"], iou["greedy"])
    for plain, back in zip(found["beam"], found["back"], strict=True):
        assert back.grounding.passes == plain.grounding.passes + 2 * 2  # two views of each of two paths
        assert 0 < back.grounding.path_score < 1
        # The same two ends, the other way round.
        assert back.grounding.box == pytest.approx(plain.grounding.alternatives[0].box, abs=1e-3)
    assert [one.grounding.passes for one in found["one path"]] == [one.grounding.passes for one in found["greedy"]]


def test_tuning_tries_to_look_back(records):
    trials = tune.search(open_grounder, records[1], 0, (1, 2), (0.95,), (0.0,))
    back = [trial for trial in trials if trial.zoom.get("look_back") and not trial.zoom.get("last_look")]
    assert [trial.zoom["look_back"] for trial in back] == list(tune.LOOK_BACKS)
    assert {trial.zoom["beam"] for trial in back} == {2}
    assert all(" ".join(f"{side:g}" for side in sides) in tune.table(back) for sides in tune.LOOK_BACKS)


def test_views_lie_in_the_photo_and_hold_the_box():
    rng = np.random.default_rng(1)
    sizes = rng.integers(50, 400, (50, 2)).astype(np.int32)
    low = rng.uniform(0, 0.7, (50, 2)) * sizes[:, ::-1]
    boxes = np.concatenate([low, low + 0.25 * sizes[:, ::-1] * rng.uniform(0.1, 1, (50, 2))], 1).astype(np.float32)
    for side in (0.3, 0.7, 1.0):
        crops, progress = jax.device_get(look_back.wider(jnp.array(boxes), jnp.array(sizes), jnp.float32(side)))
        np.testing.assert_allclose(crops[:, 2:] - crops[:, :2], side * sizes[:, ::-1], rtol=1e-4)
        assert (crops[:, :2] >= -1e-3).all()
        assert (crops[:, 2:] <= sizes[:, ::-1] + 1e-3).all()
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        assert ((crops[:, :2] <= centre) & (centre <= crops[:, 2:])).all()
        assert ((progress >= 0) & (progress <= 1)).all()
        assert (progress == 0).all() == (side == 1.0)


@pytest.mark.parametrize("sides", [(0.0,), (0.5, 1.2)])
def test_sides_without_sense_are_named(sides):
    with pytest.raises(PizaError, match="zoom.look_back is .*sides above 0 and at most 1"):
        ZoomConfig(look_back=sides)


def test_the_command_takes_sides(records, monkeypatch, capsys):
    monkeypatch.setattr("piza_jax.grounder.open_model", lambda *_, **__: loaded(Tempted, margin=1.0, **ZOOM))
    options = ["evaluate", "--checkpoint=any", *records[0], "--json", "--beam=2", "--look_back=0.95,0.9"]
    assert main(options) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["made"]["all"]["Acc50"] == 1.0
    with pytest.raises(SystemExit):
        main([*options[:-1], "--look_back=wide"])
    assert "--look_back" in capsys.readouterr().err
