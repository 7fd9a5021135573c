"""The path score that is learnt: its features, the regression, who judges it, and its use in a zoom."""

import dataclasses
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
from piza_jax.evaluation import learn, tune
from piza_jax.evaluation.evaluate import predictions
from piza_jax.piza.beam import beam_zoom
from piza_jax.piza.learnt import FEATURES, LearntScore, path_features
from piza_jax.piza.zoom import ZoomConfig, ZoomStep, changed, zoom
from tests.fake_detector import COLOURS, PatchDetector, _found, draw_patches, loaded, make_tokenizer, write_records

CONFIG = ZoomConfig(canvas_hw=(96, 96), min_crop_px=16.0, crop_method="dense", max_steps=4)
PLANTED = np.array([0.0, 2.0, 0.0, 0.0, -1.5, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0])


def steps_of(rng, batch, count):
    """Steps that end at different times and repeat the last one, as a zoom gives them."""
    low = rng.uniform(0, 60, (2, batch, count, 2))
    crops, boxes = (np.concatenate([part, part + rng.uniform(5, 80, part.shape)], -1) for part in low)
    numbers = rng.uniform(0.01, 0.99, (3, batch, count))
    ended = rng.integers(1, count + 1, batch)
    last = np.minimum(np.arange(count), ended[:, None] - 1)
    step = ZoomStep(*(np.take_along_axis(part, last[..., None], 1).astype(np.float32) for part in (crops, boxes)),
                    *(np.take_along_axis(part, last, 1).astype(np.float32) for part in numbers))  # fmt: skip
    return step, np.arange(count) < ended[:, None]


def side(box):
    return np.sqrt((box[2] - box[0]) * (box[3] - box[1]))


def odds(chance):
    return np.log(chance / (1 - chance))


def test_features_are_those_of_a_plain_loop():
    steps, active = steps_of(np.random.default_rng(0), 40, 5)
    found = np.asarray(path_features(steps, jnp.array(active)))
    assert found.shape == (40, len(FEATURES))
    for row, values in enumerate(found):
        n = int(active[row].sum())
        crop, box, score, progress, stop = (part[row, :n].astype(np.float64) for part in steps)
        last, view = box[-1], crop[-1]
        room = np.concatenate([last[:2] - view[:2], view[2:] - last[2:]]) / np.tile(view[2:] - view[:2], 2)
        wide, high = last[2:] - last[:2]
        expected = {
            "last_score": odds(score[-1]),
            "mean_score": np.mean(odds(score)),
            "least_score": odds(score.min()),
            "first_score": odds(score[0]),
            "stop": odds(stop[-1]),
            "progress": progress[-1],
            "looks": n,
            "size": np.log(side(last) / side(crop[0])),
            "tightness": np.log(side(last) / side(view)),
            "largest_step": min(np.log(side(a) / side(b)) for a, b in zip(box, crop, strict=True)),
            "margin": room.min(),
            "aspect": abs(np.log(wide / high)),
            "agreement": learn.overlaps(last, box[-2]) if n > 1 else 0.0,
        }
        assert tuple(expected) == FEATURES
        np.testing.assert_allclose(values, list(expected.values()), rtol=2e-4, atol=2e-4)


def planted_paths(seed=0, records=600, paths=4):
    """Paths of which the chance to be right is a known function of their features."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(records, paths, len(FEATURES))) * rng.uniform(0.5, 3, len(FEATURES)) + 1.0
    standard = (features - features.mean((0, 1))) / features.std((0, 1))
    right = rng.uniform(size=(records, paths)) < 1 / (1 + np.exp(-(standard @ PLANTED - 1)))
    photos = tuple(f"{record // 3}.png" for record in range(records))
    overlaps = np.where(right, rng.uniform(0.6, 0.95, right.shape), rng.uniform(0, 0.3, right.shape))
    return learn.Paths(photos, features, overlaps, np.ones((records, paths), bool)), right, standard


def test_a_planted_rule_is_recovered():
    paths, right, standard = planted_paths()
    score = learn.fit(paths.features.reshape(-1, len(FEATURES)), right.reshape(-1), "last")
    weights = np.array(score.weights)
    assert weights @ PLANTED / np.linalg.norm(weights) / np.linalg.norm(PLANTED) > 0.97
    assert np.abs(weights[PLANTED == 0]).max() < 0.2 * np.abs(weights).max()
    lesson = learn.learn(paths, "last")
    ideal = learn.accuracy(paths, (standard @ PLANTED).argmax(1), ~learn.halves(paths.photos, 0))
    first = learn.accuracy(paths, np.zeros(len(right), int), ~learn.halves(paths.photos, 0))
    assert lesson.accuracy > first + 0.5 * (ideal - first)
    assert lesson.records == (~learn.halves(paths.photos, 0)).sum()
    np.testing.assert_allclose(
        np.asarray(score.log_score(jnp.array(paths.features, jnp.float32))),
        -np.logaddexp(0, -learn.log_odds(score, paths.features)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_the_gradient_is_zero_at_the_fit_and_the_penalty_shrinks():
    paths, right, _ = planted_paths(records=60)
    features, labels = paths.features.reshape(-1, len(FEATURES)), right.reshape(-1)
    sizes = []
    for penalty in (0.01, 1.0):
        score = learn.fit(features, labels, "last", penalty)
        x = (features - score.mean) / np.array(score.scale)
        error = 1 / (1 + np.exp(-learn.log_odds(score, features))) - labels
        np.testing.assert_allclose(x.T @ error / len(x) + penalty * np.array(score.weights), 0, atol=1e-7)
        assert abs(error.mean()) < 1e-7
        sizes.append(np.linalg.norm(score.weights))
    assert sizes[1] < 0.5 * sizes[0]
    # Features that separate all paths, and one that is the same for all, leave finite weights.
    features[:, 0], features[:, 1] = 5.0, labels
    assert np.abs(learn.fit(features, labels, "last").weights).max() < 10


def test_learning_is_the_same_every_time_and_photos_are_on_one_side():
    paths = planted_paths()[0]
    assert learn.learn(paths, "last") == learn.learn(paths, "last")
    assert learn.learn(paths, "last", seed=1) != learn.learn(paths, "last")
    teaches = learn.halves(paths.photos, 3)
    sides = {photo: set() for photo in paths.photos}
    for photo, teaching in zip(paths.photos, teaches, strict=True):
        sides[photo].add(bool(teaching))
    assert all(len(side) == 1 for side in sides.values())
    assert 0.45 < teaches.mean() < 0.55


def test_there_may_be_nothing_to_learn():
    paths = planted_paths()[0]
    one = learn.Paths(paths.photos, np.zeros((600, 1, 0)), paths.overlaps[:, :1], paths.valid[:, :1])
    assert learn.learn(one, "last") is None
    assert learn.learn(dataclasses.replace(paths, photos=("a",) * 600), "last") is None
    assert learn.learn(dataclasses.replace(paths, overlaps=np.zeros((600, 4))), "last") is None


def trial(paths, beam, accuracy, passes):
    return tune.Trial({"beam": beam, "path_score": "last"}, len(paths.photos), accuracy, passes, paths=paths)


def test_the_half_that_did_not_teach_judges():
    paths = planted_paths()[0]
    greedy = learn.Paths(paths.photos, np.zeros((600, 1, 0)), np.full((600, 1), 0.52), np.ones((600, 1), bool))
    choice = tune.choose([trial(greedy, 1, 0.1, 2.0), trial(paths, 4, 0.09, 8.0)])
    assert choice.learnt
    assert choice.simple == pytest.approx(0.1)  # of the ten IoUs 0.52 reaches one
    assert choice.zoom["path_score"] == "learnt"
    assert choice.zoom["beam"] == 4
    np.testing.assert_allclose(
        choice.scores, [1 / (1 + np.exp(-learn.log_odds(choice.lesson.score, row).max())) for row in paths.features]
    )
    assert choice.to_dict()["accuracy"] == choice.lesson.accuracy > choice.simple
    ZoomConfig(**json.loads(json.dumps(choice.zoom)))
    # Nothing is better than what is right already, however good the lesson.
    perfect = dataclasses.replace(greedy, overlaps=np.ones((600, 1)))
    choice = tune.choose([trial(perfect, 1, 1.0, 2.0), trial(paths, 4, 0.2, 8.0)])
    assert not choice.learnt
    assert choice.zoom == {"beam": 1, "path_score": "last"}
    assert choice.to_dict()["zoom"]["path_score"] == "learnt"
    assert tune.choose([trial(perfect, 1, 1.0, 2.0)]).to_dict() is None


def score_of(weights=None, rule="last"):
    zeros, ones = (0.0,) * len(FEATURES), (1.0,) * len(FEATURES)
    return LearntScore(rule, FEATURES, zeros, ones, tuple(weights) if weights is not None else ones, 0.5)


def test_a_file_of_other_features_is_refused(tmp_path, capsys):
    good = dataclasses.asdict(score_of())
    wrong = {
        "this version reads last_score": {**good, "features": ["last_score", "colour"]},
        "no finite weights for each of its 13 features": {**good, "weights": [1.0, 2.0]},
        "has rule, features, mean, scale, weights, bias, and not rule": {"rule": "last"},
        "a scale that is not above 0": {**good, "scale": [0.0] * len(FEATURES)},
        "damaged": {**good, "bias": "much"},
        "what piza tune writes": [1, 2],
    }
    for says, learnt in wrong.items():
        path = tmp_path / "zoom.json"
        path.write_text(json.dumps({"zoom": {"beam": 2, "path_score": "learnt", "learnt": learnt}}))
        assert main(["ground", "photo.png", "a car", "--checkpoint=nowhere", f"--zoom={path}"]) == 2
        printed = capsys.readouterr().err
        assert says in printed
        assert str(path) in printed
    with pytest.raises(PizaError, match="'learnt' needs coefficients: give --zoom=FILE"):
        ZoomConfig(path_score="learnt")
    with pytest.raises(PizaError, match="zoom.learnt is .*it must be of a rule among mean_log"):
        ZoomConfig(learnt=score_of(rule="best"))
    assert ZoomConfig(path_score="learnt", learnt=good).learnt == score_of()


def test_one_path_is_the_greedy_zoom_whatever_was_learnt():
    tokenizer = make_tokenizer()
    model = PatchDetector(tuple(int(tokenizer.encode(colour, 8)[0][1]) for colour in COLOURS))
    photos = np.zeros((3, 256, 320, 3), np.uint8)
    for row in range(3):
        photos[row, :240, :300] = draw_patches(row, 300, 240)[0]
    photo_hw = np.array([[240, 300]] * 3, np.int32)
    text = model.encode_text(*map(np.stack, zip(*(tokenizer.encode(f"{c} patch", 8) for c in COLOURS), strict=True)))
    graphdef, state = nnx.split(model)
    settings = {"path_score": "learnt", "learnt": score_of(np.linspace(-0.1, 0.1, len(FEATURES)))}

    def run(way, config):
        program = jax.jit(lambda state, text: way(nnx.merge(graphdef, state), photos, photo_hw, text, config))
        return jax.device_get(program(state, text))

    plain, greedy, one = (
        run(zoom, CONFIG),
        run(zoom, changed(CONFIG, **settings)),
        run(beam_zoom, changed(CONFIG, **settings)),
    )
    for name in set(plain._fields) - {"path_score", "no_target", "beam"}:
        np.testing.assert_array_equal(getattr(plain, name), getattr(greedy, name), err_msg=name)
        np.testing.assert_array_equal(getattr(plain, name), getattr(one, name), err_msg=name)
    steps = ZoomStep(greedy.crops, greedy.boxes, greedy.scores, greedy.progress, greedy.stop_probability)
    expected = np.exp(settings["learnt"].log_score(path_features(steps, jnp.array(greedy.active))))
    np.testing.assert_allclose(greedy.path_score, expected, rtol=1e-5)
    np.testing.assert_allclose(one.path_score, expected, rtol=1e-5)
    assert not np.allclose(plain.path_score, expected)


class LoudDecoy(PatchDetector):
    """The patch of the next colour scores higher than that of the colour asked for, but its box is wide."""

    def detect(self, images, valid_hw, text, progress=None):
        boxes, scores = [], []
        for channel, score, shape in ((text.channel, 0.7, (1, 1, 1, 1)), ((text.channel + 1) % 3, 0.9, (1, 1, 2.5, 1))):
            box, top, _ = self.find(images, valid_hw, channel, progress)
            boxes.append(jnp.where(jnp.isfinite(box), box, 0.5) * jnp.array(shape))
            scores.append(jnp.where(top > 60, score, 0.02))
        scores = jnp.stack(scores, axis=1)
        return _found(jnp.log(scores / (1 - scores)), jnp.stack(boxes, axis=1))


def test_a_beam_learns_what_its_scores_do_not_tell(tmp_path):
    write_records(tmp_path, [(300 + 10 * n, 240) for n in range(12)])
    records = RecordSource(read_annotations(tmp_path / "made.json"), tmp_path)
    fields = {name: getattr(CONFIG, name) for name in ("canvas_hw", "min_crop_px", "crop_method", "max_steps")}

    def open_grounder(settings):
        return piza_jax.load(loaded(LoudDecoy, margin=1.0, **fields), batch_size=16, **settings)

    trials = [tune.attempt(open_grounder, {"beam": 2, "path_score": "last"}, records)]
    assert trials[0].accuracy == 0
    choice = tune.choose(trials)
    assert choice.learnt
    assert choice.lesson.accuracy > 0.3
    found = list(predictions(open_grounder(choice.zoom), records))
    judges = ~learn.halves([one.name for one in found], 0)
    overlaps = np.array([one.iou for one in found], np.float32)
    # The compiled zoom takes the very paths that the lesson was judged by.
    assert np.mean(overlaps[judges][:, None] >= learn.THRESHOLDS) == pytest.approx(choice.lesson.accuracy)
    assert min(overlaps) > 0.3
    for one in found:
        assert 0 < one.grounding.alternatives[0].path_score < one.grounding.path_score < 1
        assert one.grounding.alternatives[0].score > one.grounding.score
