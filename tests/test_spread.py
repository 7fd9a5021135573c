"""Groundings that several devices share equal those of one, example by example, whatever is left for the last batch."""

import json
from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx

import piza_jax
from piza_jax.cli import main
from piza_jax.data.pairs import filled_rows
from piza_jax.data.records import RecordSource, read_annotations
from piza_jax.evaluation.evaluate import predictions
from piza_jax.models.params import unflatten_state
from piza_jax.piza.detector import PizaDetector
from piza_jax.piza.grounding import Grounder
from piza_jax.piza.zoom import ZoomConfig
from piza_jax.training import sharding
from tests import figures, tiny_detector
from tests.fake_detector import COLOURS, draw_patches, loaded, make_tokenizer, write_records

SIZES = [(120, 100), (90, 80), (500, 400), (320, 480), (110, 90), (400, 300), (450, 512), (256, 512), (100, 130)]
SIZES += [(480, 320), (360, 500), (95, 85), (512, 512)]
ZOOM = {"canvas_hw": (96, 96), "min_crop_px": 16.0, "crop_method": "dense", "max_steps": 4}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Thirteen records, five of them for a last batch of eight, as options of the command and as a source."""
    folder = tmp_path_factory.mktemp("records")
    options = write_records(folder, SIZES)
    return options, RecordSource(read_annotations(folder / "made.json"), folder)


def assert_same(found, expected):
    """Every number of every grounding."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.expression, len(one.steps), one.passes) == (other.expression, len(other.steps), other.passes)
        assert one.no_target == other.no_target
        figures.note("spread over eight devices, pixels", np.abs(np.subtract(one.box, other.box)).max())
        np.testing.assert_allclose(one.box, other.box, rtol=0, atol=1e-3)
        np.testing.assert_allclose([one.score, one.path_score], [other.score, other.path_score], rtol=0, atol=1e-6)
        for step, same in zip(one.steps, other.steps, strict=True):
            np.testing.assert_allclose((*step.crop, *step.box), (*same.crop, *same.box), rtol=0, atol=1e-3)
            readings = (step.score, step.progress, step.stop_probability)
            np.testing.assert_allclose(readings, (same.score, same.progress, same.stop_probability), rtol=0, atol=1e-5)
        ends = [(*end.box, end.score, end.path_score) for end in one.alternatives]
        same_ends = [(*end.box, end.score, end.path_score) for end in other.alternatives]
        np.testing.assert_allclose(ends, same_ends, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("method", "zoom", "count"),
    [("piza", {"beam": 2, "backtrack": 0.5}, 13), ("single", {"canvas_multiple": 96}, 13), ("grid:2x2:full", {}, 5)],
    ids=["beam", "single", "grid"],
)
def test_eight_devices_equal_one_with_an_uneven_last_batch(files, method, zoom, count, monkeypatch):
    used = []
    fetch = sharding.Spread.fetch

    def watched(self, tree):
        used.append({len(leaf.sharding.device_set) for leaf in jax.tree.leaves(tree)})
        return fetch(self, tree)

    monkeypatch.setattr(sharding.Spread, "fetch", watched)

    def found(devices):
        grounder = piza_jax.load(loaded(margin=2.0, **ZOOM), method=method, batch_size=8, devices=devices, **zoom)
        return [one.grounding for one in predictions(grounder, files[1], count)]

    one = found(jax.devices()[:1])
    assert len(one) == count
    assert not used
    together = found(jax.devices())
    assert used
    assert all(devices == {8} for devices in used)
    assert_same(together, one)


def test_a_batch_is_filled_up_for_its_devices():
    assert filled_rows(3, 8, 1) == [0, 1, 2, 2]
    assert filled_rows(3, 8, 8) == [0, 1, 2, 2, 2, 2, 2, 2]
    assert filled_rows(5, 6, 4) == [0, 1, 2, 3, 4, 4, 4, 4]
    assert filled_rows(1, 1, 1) == [0]


def test_the_command_spreads_over_the_devices_here(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("piza_jax.grounder.open_model", lambda *_, **__: loaded(margin=2.0, **ZOOM))
    compiled, compile_ = [], sharding.Spread.compile
    monkeypatch.setattr(
        sharding.Spread, "compile", lambda self, run: compiled.append(self.parts) or compile_(self, run)
    )
    stored = []
    for devices in (jax.devices(), jax.devices()[:1]):
        monkeypatch.setattr(jax, "local_devices", lambda devices=devices: devices)
        path = tmp_path / f"{len(devices)}.json"
        assert main(["evaluate", "--checkpoint=any", *files[0], f"--output={path}"]) == 0
        stored.append(json.loads(path.read_text()))
    assert set(compiled) == {8}
    eight, one = (kept["predictions"]["made"] for kept in stored)
    assert [item["id"] for item in eight] == list(range(len(SIZES)))
    assert len({len(item["steps"]) for item in eight}) > 1  # devices are ready at different times
    for item, other in zip(eight, one, strict=True):
        for step, same in zip(item["steps"], other["steps"], strict=True):
            for name, value in step.items():
                np.testing.assert_allclose(value, same[name], rtol=0, atol=1e-3, err_msg=name)
        np.testing.assert_allclose(item["box"], other["box"], rtol=0, atol=1e-3)
        assert item["score"] == pytest.approx(other["score"], abs=1e-6)
    assert stored[0]["metrics"]["made"]["all"] == pytest.approx(stored[1]["metrics"]["made"]["all"], rel=1e-6)
    capsys.readouterr()


def test_weights_of_a_run_stay_in_their_shards_and_new_ones_are_taken():
    mesh = sharding.make_mesh(2, 4)
    spread = sharding.Spread(mesh)
    split = jax.device_put(np.ones((8, 16), np.float32), sharding.NamedSharding(mesh, sharding.PartitionSpec("fsdp")))
    placed = spread.model({"split": split, "new": jax.numpy.ones(3)})
    assert placed["split"] is split
    assert placed["new"].sharding.is_fully_replicated
    assert len(placed["new"].sharding.device_set) == spread.parts == 8
    rows = np.arange(16, dtype=np.float32).reshape(8, 2)
    scaled = spread.compile(lambda state, rows: rows * state["split"].sum() + state["new"][0])
    np.testing.assert_array_equal(spread.fetch(scaled(placed, spread.batch(rows))), rows * 128 + 1)


@pytest.mark.slow
def test_the_real_detector_on_eight_devices_equals_one(monkeypatch):
    tokenizer = make_tokenizer()
    config = tiny_detector.model_config(delimiter_ids=tokenizer.delimiter_ids)
    graph, state, rest = tiny_detector.split(nnx.eval_shape(lambda: PizaDetector(config, rngs=nnx.Rngs(0))))
    model = nnx.merge(graph, unflatten_state(state, tiny_detector.parameters()), rest)
    zoom = ZoomConfig(canvas_hw=(64, 64), max_steps=2, stop_threshold=1.0)
    photos = [draw_patches(seed, width, height)[0] for seed, (width, height) in enumerate(SIZES[:3])]
    texts = [f"{COLOURS[seed]} patch here" for seed in range(3)]
    spread = sharding.Spread(sharding.make_mesh(2, 4))
    # They run once: optimising them would take longer than all the rest.
    jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    monkeypatch.setattr(jax, "jit", jit)
    found = [
        Grounder(model, tokenizer, zoom, 16, batch_size=4, photo_hw=(512, 512), placement=placement).ground(
            photos, texts
        )
        for placement in (spread, None)
    ]
    assert_same(*found)
