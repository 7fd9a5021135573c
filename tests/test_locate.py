"""What a zoom does beside following its boxes: margins, scores of several layers, and a last look at the end."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import piza_jax
from configs import mini
from piza_jax import PizaError
from piza_jax.cli import main
from piza_jax.evaluation.geometry import overlaps
from piza_jax.export_zoom import export_zoom
from piza_jax.exported import load_exported
from piza_jax.piza import locate
from piza_jax.piza.zoom import zoom
from piza_jax.piza.zoom_config import ZoomConfig, zoom_config_of
from tests.fake_detector import COLOURS, Found, PatchDetector, Quiet, Reading, draw_patches, loaded, write_records

ZOOM = {"canvas_hw": (96, 96), "min_crop_px": 16.0, "crop_method": "dense", "max_steps": 4}
SIZES = [(500, 400), (320, 480), (512, 256)]


def flat(view, valid_hw):
    return view.astype(jnp.float32)


class Layers(nnx.Module):
    """The same boxes in every view; each layer of the decoder scores them in its own way."""

    def __init__(self, boxes, logits, stop_from=2):
        self.boxes, self.logits, self.stop_from = nnx.Param(jnp.array(boxes)), nnx.Param(jnp.array(logits)), stop_from

    def read_history(self, boxes_xyxy, mask):
        count = jnp.sum(mask, axis=1)
        return Reading((count > self.stop_from).astype(jnp.float32), count / 10.0)

    def detect(self, images, valid_hw, text, progress=None):
        batch, (layers, queries) = len(images), self.logits[...].shape
        logits = jnp.broadcast_to(self.logits[...][:, None, :, None], (layers, batch, queries, 1))
        padding = jnp.full_like(logits, -jnp.inf)
        boxes = jnp.broadcast_to(self.boxes[...], (layers, batch, queries, 4))
        return Found(jnp.concatenate([logits, padding], axis=-1), boxes)


@pytest.fixture(scope="module")
def scenes():
    return draw(SIZES)


def draw(sizes):
    """Photos of these widths and heights, a sentence each, and where what it names is."""
    drawn = [draw_patches(seed, *size) for seed, size in enumerate(sizes)]
    colours = [COLOURS[seed % 3] for seed in range(len(sizes))]
    boxes = [found[colour] for (_, found), colour in zip(drawn, colours, strict=True)]
    return [photo for photo, _ in drawn], [f"{colour} patch here" for colour in colours], boxes


def ground(scenes, kind=PatchDetector, margin_px=3.0, **options):
    grounder = piza_jax.load(loaded(kind, margin=margin_px, **ZOOM), batch_size=4, stop_threshold=0.9, **options)
    return grounder.ground(scenes[0], scenes[1])


@pytest.mark.parametrize(("layers", "chosen"), [(1, 0), (2, 1), (3, 2), (9, 2)])
@pytest.mark.parametrize("beam", [1, 2])
def test_scores_of_so_many_last_layers_count(layers, chosen, beam):
    boxes = np.array([[0.2, 0.2, 0.1, 0.1], [0.5, 0.5, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]], np.float32)
    logits = np.array([[-9, -9, 9], [0, 3, -1], [2, 1, 0]], np.float32)  # the first layer first
    config = ZoomConfig(canvas_hw=(32, 32), max_steps=1, score_layers=layers, beam=beam)
    photos, sizes = np.zeros((1, 100, 100, 3), np.uint8), np.array([[100, 100]], np.int32)
    found = locate.locate(Layers(boxes, logits), photos, sizes, jnp.zeros(1), config, flat)
    np.testing.assert_allclose(found.box[0, :2] + 5, 100 * boxes[chosen, :2], atol=1e-3)
    expected = 1 / (1 + np.exp(-logits[-layers:].mean(axis=0)[chosen]))
    np.testing.assert_allclose(found.score, [expected], rtol=1e-5)


@pytest.mark.parametrize("beam", [1, 2])
def test_crops_are_wider_than_the_boxes_by_the_margin(scenes, beam):
    for photo, one in zip(scenes[0], ground(scenes, margin=1.5, beam=beam), strict=True):
        assert len(one.steps) > 1
        for before, after in zip(one.steps, one.steps[1:], strict=False):
            box, crop = np.reshape(before.box, (2, 2)), np.reshape(after.crop, (2, 2))
            limits = np.array(photo.shape[1::-1], float)
            side = np.maximum(np.minimum(1.5 * (box[1] - box[0]), limits), 16.0)
            np.testing.assert_allclose(crop[1] - crop[0], side, atol=1e-2)
            low = np.clip(box.mean(axis=0) - side / 2, 0, limits - side)
            np.testing.assert_allclose(crop[0], low, atol=1e-2)


def test_a_margin_of_one_is_none(scenes):
    assert ground(scenes) == ground(scenes, margin=1.0, score_layers=1, last_look=0.0)
    assert [one.steps[1].crop for one in ground(scenes)] == [one.steps[0].box for one in ground(scenes)]


@pytest.mark.parametrize("beam", [1, 2])
def test_the_last_look_is_that_of_a_plain_loop(beam):
    rng = np.random.default_rng(0)
    sizes = np.array([[200, 300], [240, 150]], np.int32)
    photos = rng.integers(0, 255, (2, 240, 300, 3), np.uint8)
    boxes = rng.uniform([0.4, 0.4, 0.2, 0.2], [0.6, 0.6, 0.5, 0.5], (60, 4)).astype(np.float32)
    logits = rng.normal(size=(1, 60)).astype(np.float32)
    config = ZoomConfig(**ZOOM, last_look=1.6, beam=beam)
    found = locate.locate(Layers(boxes, logits, stop_from=1), photos, sizes, jnp.zeros(2), config, flat)
    assert found.num_steps.tolist() == [2, 2]
    for row, (height, width) in enumerate(sizes):
        x0, y0, x1, y1 = end = found.boxes[row, 0]
        side = min(1.6 * max(x1 - x0, y1 - y0), height, width)
        corner = np.clip([(x0 + x1 - side) / 2, (y0 + y1 - side) / 2], 0, [width - side, height - side])
        np.testing.assert_allclose(found.crops[row, 1], [*corner, *(corner + side)], atol=1e-3)
        centre, half = boxes[:, :2], boxes[:, 2:] / 2
        in_photo = np.concatenate([centre - half, centre + half], 1).clip(0, 1) * side + np.tile(corner, 2)
        same = overlaps(in_photo, np.array(end)) >= 0.5
        assert 0 < same.sum() < len(same)
        best = np.where(same, logits[0], -np.inf).argmax()
        np.testing.assert_allclose(found.box[row], in_photo[best], atol=1e-2)
        np.testing.assert_allclose(found.score[row], 1 / (1 + np.exp(-logits[0, best])), rtol=1e-5)
        way = np.log(np.sqrt(width * height) / side) / np.log(np.sqrt(width * height / ((x1 - x0) * (y1 - y0))))
        np.testing.assert_allclose(found.progress[row, 1], way, rtol=1e-3)


def test_a_last_look_that_sees_something_else_changes_nothing():
    # Both views show a small box in a corner, which the last one would take for the target.
    model = Layers(np.array([[0.2, 0.2, 0.1, 0.1]], np.float32), np.array([[1.0]], np.float32), stop_from=1)
    photos, sizes = np.zeros((1, 400, 400, 3), np.uint8), np.array([[400, 400]], np.int32)
    config = ZoomConfig(**ZOOM)
    plain = zoom(model, photos, sizes, jnp.zeros(1), config, flat)
    found = locate.locate(model, photos, sizes, jnp.zeros(1), ZoomConfig(**ZOOM, last_look=4.0), flat)
    assert plain.num_steps.tolist() == [1]
    assert found.num_steps.tolist() == [2]
    np.testing.assert_array_equal(found.box, plain.box)
    np.testing.assert_array_equal(found.score, plain.score)
    np.testing.assert_array_equal(found.boxes[:, 1], plain.box)


@pytest.mark.parametrize(
    "options", [{}, {"max_steps": 1}, {"beam": 2}, {"beam": 2, "look_back": (0.9,)}, {"training_free": True}]
)
def test_the_last_look_is_one_step_more_in_a_view_around_the_box(scenes, options):
    plain, found = ground(scenes, **options), ground(scenes, **options, last_look=1.6)
    for before, after in zip(plain, found, strict=True):
        assert after.steps[:-1] == before.steps
        assert after.passes == before.passes + 1
        assert after.path_score == before.path_score
        assert after.alternatives == before.alternatives
        last = after.steps[-1]
        assert (last.box, last.score, last.stop_probability) == (after.box, after.score, 1.0)
        x0, y0, x1, y1 = before.box
        side = max(1.6 * max(x1 - x0, y1 - y0), 16)
        assert last.crop[2] - last.crop[0] == pytest.approx(side, abs=0.01)
        assert last.crop[3] - last.crop[1] == pytest.approx(side, abs=0.01)


@pytest.mark.parametrize("beam", [1, 2])
def test_zooms_of_one_batch_that_end_at_different_steps_are_as_alone(beam):
    scenes, options = draw([(700, 500), (110, 80)]), {"margin_px": 8.0, "beam": beam, "last_look": 3.0}
    together = ground(scenes, **options)
    assert len({len(one.steps) for one in together}) > 1
    for place, one in enumerate(together):
        (alone,) = ground([part[place : place + 1] for part in scenes], **options)
        assert len(alone.steps) == len(one.steps)
        np.testing.assert_allclose(alone.box, one.box, atol=0.01)
        assert alone.path_score == pytest.approx(one.path_score, abs=1e-6)


def test_a_last_look_places_the_box_better(scenes):
    # Boxes are a pixel of the view too wide: the smaller the last view, the less that is in the photo.
    shared = {"margin_px": 1.0, "max_steps": 2, "margin": 3.0}
    plain, found = ground(scenes, **shared), ground(scenes, **shared, last_look=2.0)
    for before, after, target in zip(plain, found, scenes[2], strict=True):
        assert overlaps(np.array(after.box), np.array(target)) > overlaps(np.array(before.box), np.array(target))


def test_rows_that_end_at_different_steps_keep_theirs():
    early, late = np.array([1, 3]), 4
    n = 4
    steps = np.arange(2 * n * 4, dtype=np.float32).reshape(2, n, 4)
    column = np.arange(2 * n, dtype=np.float32).reshape(2, n)
    found = locate.ZoomResult(
        *(jnp.array(x) for x in (steps[:, 0], column[:, 0], early.astype(np.int32), steps, steps + 100)),
        *(jnp.array(x) for x in (column, column + 100, column + 200, np.arange(n) < early[:, None])),
        path_score=jnp.ones(2),
        no_target=jnp.zeros(2, bool),
    )
    step = locate.ZoomStep(*(jnp.full((2, 4), -v) for v in (1.0, 2.0)), *(jnp.full(2, -v) for v in (3.0, 4.0, 5.0)))
    longer = locate._with_step(found, step)
    for row, count in enumerate(early):
        np.testing.assert_array_equal(longer.crops[row, :count], steps[row, :count])
        np.testing.assert_array_equal(longer.scores[row, :count], column[row, :count])
        assert (longer.crops[row, count:] == -1).all()
        assert (longer.boxes[row, count:] == -2).all()
        assert (longer.stop_probability[row, count:] == -5).all()
        assert longer.active[row].tolist() == [place <= count for place in range(late + 1)]
    assert longer.num_steps.tolist() == (early + 1).tolist()


def test_an_export_looks_as_its_grounder_does(scenes, tmp_path):
    options = {"margin": 1.2, "score_layers": 2, "last_look": 3.0, "beam": 2, "batch_size": 2}
    grounder = piza_jax.load(loaded(Quiet, margin=2.0, **ZOOM), stop_threshold=0.9, **options)
    export_zoom(grounder, tmp_path / "zoom", platforms=(jax.default_backend(),), photo_hw=[(512, 512)])
    for one, other in zip(load_exported(tmp_path / "zoom")(*scenes[:2]), grounder.ground(*scenes[:2]), strict=True):
        np.testing.assert_allclose(one.box, other.box, atol=1e-3)
        assert len(one.steps) == len(other.steps) >= 2
        assert one.passes == other.passes


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("margin", 0.9, "at least 1"),
        ("margin", float("inf"), "at least 1"),
        ("score_layers", 0, "at least 1"),
        ("last_look", 0.5, "at least 1, or 0 for none"),
        ("last_look", -1.0, "at least 1, or 0 for none"),
    ],
)
def test_values_without_sense_are_named(field, value, says):
    with pytest.raises(PizaError, match=f"zoom.{field} is .*{says}"):
        ZoomConfig(**{field: value})


def test_the_command_takes_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("piza_jax.grounder.open_model", lambda *_, **__: loaded(margin=2.0, **ZOOM))
    options = ["evaluate", "--checkpoint=any", *write_records(tmp_path, SIZES), "--json", "--stop_threshold=0.9"]
    steps = []
    for more in ([], ["--margin=1.2", "--score_layers=2", "--last_look=3"]):
        assert main([*options, *more]) == 0
        steps.append(json.loads(capsys.readouterr().out)["made"]["all"]["mean_steps"])
    assert steps[1] >= steps[0] + 1


def test_a_converted_model_keeps_the_way_to_zoom_that_it_is_given(tmp_path, capsys):
    path, target = tmp_path / "zoom.json", tmp_path / "model"
    words = ["convert", "piza-mini-base", str(target), f"--zoom={path}"]
    path.write_text(json.dumps({"zoom": {"margin": 0.5}}))
    assert main(words) == 2
    assert "zoom.margin is 0.5" in capsys.readouterr().err
    path.write_text(json.dumps({"zoom": {"width": 2}}))
    assert main(words) == 2
    assert "unknown zoom option width" in capsys.readouterr().err
    path.write_text(json.dumps({"zoom": {"margin": 1.2, "score_layers": 2, "last_look": 6.0, "learnt": None}}))
    assert main([*words, "--to=hugging_face"]) == 2
    assert "leave out --zoom" in capsys.readouterr().err
    assert not target.exists()
    assert main(words) == 0
    before, after = (piza_jax.load(source, training_free=True).zoom_config for source in ("piza-mini-base", target))
    assert after == dataclasses.replace(before, margin=1.2, score_layers=2, last_look=6.0)


def test_a_configuration_says_how_its_model_zooms():
    config = mini.get_config("smoke")
    paper = zoom_config_of(config.to_dict())
    assert (paper.margin, paper.score_layers, paper.last_look) == (1.0, 1, 0.0)
    config.zoom.update(margin=1.3, score_layers=2, last_look=5.0)
    assert zoom_config_of(config.to_dict()) == dataclasses.replace(paper, margin=1.3, score_layers=2, last_look=5.0)
