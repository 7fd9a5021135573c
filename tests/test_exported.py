"""A zoom compiled ahead of time: the groundings of the model it came from, without its code, or a clear error."""

import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export
from PIL import Image

import piza_jax
from piza_jax import cli
from piza_jax.convert.load import Loaded
from piza_jax.data.pairs import PHOTO_SIDES
from piza_jax.data.tokenize import Tokenizer
from piza_jax.errors import PizaError
from piza_jax.export_zoom import export_zoom
from piza_jax.exported import files
from piza_jax.models.params import unflatten_state
from piza_jax.ops.deformable import deformable_attention
from piza_jax.ops.platforms import for_any_platform
from piza_jax.piza.detector import PizaDetector
from tests import fake_detector, figures, tiny_detector

ROOT = Path(__file__).resolve().parents[1]
BATCH = 2
TEXTS = ["The red car.", "The blue sign on the left of the red car.", "A sign"]
REFUSED = (
    "flax",
    "optax",
    "orbax",
    *(f"piza_jax.{name}" for name in ("models", "piza", "peft", "convert", "training")),
)

# Run by a Python of its own: folder, photo and sentence as arguments.
WITHOUT_MODEL_CODE = f"""
import json, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.startswith({REFUSED!r}):
            raise ImportError("refused: " + name)

sys.meta_path.insert(0, Refuse())
import piza_jax
found = piza_jax.load_exported(sys.argv[1])(sys.argv[2], sys.argv[3])
try:
    piza_jax.load
except ImportError as error:
    print(json.dumps([found.to_dict(), str(error)]))
"""


@pytest.fixture(scope="module")
def fake() -> Loaded:
    zoom = {"canvas_hw": (96, 96), "min_crop_px": 16.0, "crop_method": "dense", "max_steps": 3}
    return fake_detector.loaded(kind=fake_detector.Quiet, **zoom)


@pytest.fixture(scope="module")
def grounder(fake):
    return piza_jax.load(fake, batch_size=BATCH, beam=2, no_target_threshold=0.5)


@pytest.fixture(scope="module")
def folder(grounder, tmp_path_factory):
    target = tmp_path_factory.mktemp("exported") / "fake"
    export_zoom(grounder, target, photo_hw=[(400, 500), (500, 700), (300, 300)])
    return target


@pytest.fixture(scope="module")
def zoom(folder):
    return piza_jax.load_exported(folder)


def assert_same(ours, theirs, name):
    """Everything equal, boxes within 1e-4 pixels, other numbers within 1e-6."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.expression == other.expression
        assert (one.no_target, one.passes, len(one.steps)) == (other.no_target, other.passes, len(other.steps))
        assert len(one.alternatives) == len(other.alternatives)
        parts = [(item, *item.steps, *item.alternatives) for item in (one, other)]
        for keys, tolerance in (
            (("box", "crop"), 1e-4),
            (("score", "path_score", "progress", "stop_probability"), 1e-6),
        ):
            mine, his = (
                np.array([getattr(part, key) for part in items for key in keys if hasattr(part, key)])
                for items in parts
            )
            np.testing.assert_allclose(mine, his, rtol=0, atol=tolerance)
            figures.note(f"{name}, {keys[0]}", np.abs(mine - his).max())


def _slope(height, width):
    """A photo of slow changes, in which the rounding of a crop's corners seldom flips a level of the next view."""
    rows, columns = np.mgrid[:height, :width]
    levels = [40 + rows / 8, 200 - columns / 6, 90 + (rows + columns) / 10]
    return np.stack(levels, axis=-1).astype(np.uint8)


@pytest.mark.slow
def test_the_detector_gives_what_its_grounder_gives(tmp_path):
    tokenizer = Tokenizer.train(TEXTS, 60)
    config = tiny_detector.model_config(delimiter_ids=tokenizer.delimiter_ids)
    model = nnx.eval_shape(lambda: PizaDetector(config, rngs=nnx.Rngs(0)))
    values = jax.tree.map(jnp.asarray, tiny_detector.parameters())
    nnx.update(model, unflatten_state(nnx.state(model), values))
    loaded = Loaded(model, tokenizer, 16, method="piza", zoom={"canvas_hw": (64, 64), "max_steps": 3})
    grounder = piza_jax.load(loaded, batch_size=4, stop_threshold=2.0)
    export_zoom(grounder, tmp_path / "tiny", photo_hw=[(512, 512)])
    zoom = piza_jax.load_exported(tmp_path / "tiny")
    small, large = _slope(200, 300), _slope(512, 450)
    photos = [small, large, small]  # one less than the batch takes
    found = zoom(photos, TEXTS)
    assert_same(found, grounder.ground(photos, TEXTS), "exported detector")
    assert [len(one.steps) for one in found] == [3, 3, 3]
    assert found[0].box != found[2].box  # the sentence counts
    assert zoom.about.platforms == ("cpu", "cuda", "tpu")


def test_paths_canvases_and_batches_are_those_of_the_grounder(zoom, grounder):
    drawn = [fake_detector.draw_patches(seed, *size)[0] for seed, size in enumerate([(700, 500), (300, 200)])]
    texts = [f"{colour} patch here" for colour in ("red", "green", "blue")]
    texts.append("blue patch")
    found = zoom(drawn[1], texts)  # two runs
    assert_same(found, grounder.ground(drawn[1], texts), "exported beam")
    assert max(len(one.alternatives) for one in found) == 1
    assert_same(zoom(drawn, texts[:2]), grounder.ground(drawn, texts[:2]), "exported beam")
    assert [one.photo_hw for one in zoom.about.zooms] == [(512, 512), (512, 1024)]
    used = {key for key in zoom._compiled if key[0].startswith("zoom")}
    assert used == {("zoom_512x512.jax_export.gz", 2), ("zoom_512x1024.jax_export.gz", 2)}


def test_an_export_for_single_photos_gives_the_same_and_takes_one_at_a_time(grounder, zoom, tmp_path):
    single = tmp_path / "single"
    about = export_zoom(grounder, single, platforms=("cpu",), photo_hw=[(400, 500)], single=True)
    assert (about.batch_size, about.text.inputs["input_ids"]["shape"][0]) == (1, 1)
    photo = fake_detector.draw_patches(1, 300, 200)[0]
    texts = ["green patch here", "blue patch"]
    one = piza_jax.load_exported(single)
    assert_same(one(photo, texts), zoom(photo, texts), "exported for one photo")
    with pytest.raises(PizaError, match="batch_size is 2, but .* was exported for one photo in each run"):
        piza_jax.load_exported(single, batch_size=2)


def test_no_model_code_is_needed(zoom, folder, tmp_path):
    photo = fake_detector.draw_patches(3, 400, 300)[0]
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    run = [sys.executable, "-c", WITHOUT_MODEL_CODE, str(folder), str(path), "green patch here"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, refusal = json.loads(done.stdout)
    assert refusal.startswith("refused: ")
    assert found == json.loads(json.dumps(zoom(str(path), "green patch here").to_dict()))


def test_the_description_names_inputs_outputs_versions_and_zoom(zoom, grounder):
    about = zoom.about
    assert about.versions["jax"] == jax.__version__
    assert about.versions["piza_jax"] == piza_jax.__version__
    assert about.zoom["beam"] == 2
    assert about.zooms[1].inputs["photos"] == {"dtype": "uint8", "shape": ["b", 512, 1024, 3]}
    assert about.zooms[1].outputs["boxes"] == {"dtype": "float32", "shape": ["b", 3, 4]}
    assert about.text.inputs["input_ids"] == {"dtype": "int32", "shape": ["b", grounder.max_tokens]}
    assert set(about.files) == {path.name for path in zoom.folder.iterdir()} - {files.ABOUT}


def test_sampling_is_lowered_in_the_form_of_each_platform():
    likes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 16, 2, 4), (1, 5, 2, 1, 3, 2), (1, 5, 2, 1, 3))]

    def sample():  # a new one each time, as a trace is kept with its function
        return partial(deformable_attention, shapes_hw=((4, 4),))

    def text(*platforms):
        with for_any_platform():
            return export.export(jax.jit(sample()), platforms=platforms)(*likes).mlir_module()

    assert "dot_general" in text("tpu")
    assert "dot_general" not in text("cpu")
    assert "dot_general" not in text("cuda")
    assert "stablehlo.case" in text("cpu", "tpu")
    assert "platform_index" not in str(jax.make_jaxpr(sample())(*likes)), "elsewhere there is one form"


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _change(**changes):
    def change(path):
        values = json.loads(path.read_text())
        for key, value in changes.items():
            values[key] = {**values[key], **value} if isinstance(value, dict) else value
        path.write_text(json.dumps(values))

    return change


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (files.WEIGHTS, Path.unlink, "weights.safetensors is missing"),
        (files.WEIGHTS, lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes instead of"),
        (files.WEIGHTS, _flip, "sha256 is not the one"),
        (files.TOKENIZER, _flip, "sha256 is not the one"),
        ("zoom_512x1024.jax_export.gz", _flip, "zoom_512x1024.jax_export.gz is damaged"),
        (files.ABOUT, Path.unlink, "there is no exported zoom at .*; piza export writes one"),
        (files.ABOUT, lambda path: path.write_text(path.read_text()[:300]), "exported.json is damaged"),
        (files.ABOUT, _change(text={"file": "other"}), "no hash of other"),
        (files.ABOUT, _change(files={"../other": {"bytes": 1, "sha256": ""}}), "../other is not in the folder"),
        (files.ABOUT, _change(format=2), "has the format 2 .* reads up to 1"),
        (files.ABOUT, _change(versions={"calling_convention": 99}), "calling convention 99; jax .* install the newer"),
        (files.ABOUT, _change(versions={"calling_convention": 1}), "calling convention 1; jax .* export again"),
    ],
)
def test_what_is_damaged_or_too_new_is_refused(folder, tmp_path, name, damage, message):
    shutil.copytree(folder, tmp_path / "copy")
    piza_jax.load_exported(tmp_path / "copy")
    damage(tmp_path / "copy" / name)
    with pytest.raises(PizaError, match=message):
        piza_jax.load_exported(tmp_path / "copy")


def test_a_program_that_this_jax_cannot_read_is_an_error(folder, tmp_path):
    place = tmp_path / "copy"
    shutil.copytree(folder, place)
    program = place / "text.jax_export.gz"
    program.write_bytes(files.gzip.compress(b"of another time"))
    _change(files={program.name: files.measured(program)})(place / files.ABOUT)
    with pytest.raises(PizaError, match=r"jax .* cannot use .*text.jax_export.gz, which jax .* wrote"):
        piza_jax.load_exported(place)(np.zeros((9, 9, 3), np.uint8), "red patch here")


def test_another_platform_is_an_error(fake, tmp_path):
    export_zoom(piza_jax.load(fake, max_steps=1), tmp_path / "gpu", platforms=["cuda"], photo_hw=[(1, 1)])
    with pytest.raises(PizaError, match="exported for cuda and jax runs on cpu here; .*--platforms=cuda,cpu"):
        piza_jax.load_exported(tmp_path / "gpu")


def test_what_is_no_zoom_of_one_device_is_not_exported(fake, tmp_path):
    for options, message in (
        ({"devices": jax.devices()}, "spreads its batches over 8 devices"),
        ({"single_pass": True}, "only a zoom can be exported"),
        ({"method": "grid:2x2"}, "only a zoom can be exported"),
    ):
        with pytest.raises(PizaError, match=message):
            export_zoom(piza_jax.load(fake, **options), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_photos_and_batches_that_do_not_fit_are_errors(folder, zoom):
    photo, ids, mask = np.zeros((9, 9, 3), np.uint8), np.zeros((1, 8), np.int32), np.ones((1, 8), bool)
    with pytest.raises(PizaError, match=r"513 x 20 pixels .* \(512 x 512, 512 x 1024\); .*--photo_hw=513,20"):
        zoom(np.zeros((513, 20, 3), np.uint8), "red patch here")
    with pytest.raises(PizaError, match="2 images and 3 expressions do not match"):
        zoom([photo, photo], ["red patch here"] * 3)
    with pytest.raises(PizaError, match="5 photos in one run; this zoom takes 1 to 2"):
        zoom.run([photo] * 5, ids.repeat(5, axis=0), mask.repeat(5, axis=0))
    with pytest.raises(PizaError, match=r"input_ids is int32 \[1, 8\]; for 2 photos it must be int32 \[2, 8\]"):
        zoom.run([photo] * 2, ids, mask)
    with pytest.raises(PizaError, match=r"token_mask is int32 \[1, 8\]; for 1 photos it must be bool"):
        zoom.run([photo], ids, mask.astype(np.int32))
    with pytest.raises(PizaError, match="the limit is 8"):
        zoom(photo, "red patch here and there and there")
    with pytest.raises(PizaError, match="batch_size is -1"):
        piza_jax.load_exported(folder, batch_size=-1)


def test_a_folder_is_written_whole_or_not_at_all(grounder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_about", full)
    with pytest.raises(PizaError, match="cannot write .*No space left"):
        export_zoom(grounder, tmp_path / "new", platforms=["cpu"], photo_hw=[(1, 1)])
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def fake_model(fake, monkeypatch):
    """Commands open the small detector, whatever --checkpoint names."""
    load = piza_jax.load
    monkeypatch.setattr(piza_jax, "load", lambda _, **options: load(fake, **options), raising=False)


@pytest.mark.usefixtures("fake_model")
def test_without_sizes_there_is_a_program_for_photos_of_every_size(tmp_path, capsys):
    target = tmp_path / "every"
    assert cli.main(["export", str(target), "--checkpoint=MODEL", "--max_steps=1"]) == 0
    about = piza_jax.load_exported(target).about
    assert [one.photo_hw for one in about.zooms] == [(side, side) for side in PHOTO_SIDES]
    assert about.platforms == ("cpu", "cuda", "tpu")
    shown = capsys.readouterr().out
    assert all(f"{side} x {side}" in shown for side in PHOTO_SIDES)


@pytest.mark.usefixtures("fake_model")
def test_the_command_exports_what_its_options_say(tmp_path, capsys):
    target = tmp_path / "new"
    given = ["export", str(target), "--checkpoint=MODEL"]
    options = ["--batch=2", "--platforms=cpu", "--photo_hw=300,600", "--max_steps=1", "--orientation=upright"]
    assert cli.main([*given, *options, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"target": str(target), "bytes": shown["bytes"], "platforms": ["cpu"], "photo_hw": [[512, 1024]]}
    about = piza_jax.load_exported(target).about
    assert (about.batch_size, about.platforms, about.zoom["max_steps"]) == (2, ("cpu",), 1)
    assert about.orientation == "upright"
    for wrong, message in (
        ([], "exists; give a new folder"),
        (["--platforms=gpu"], "unknown platform 'gpu'; .* called cuda"),
        (["--photo_hw=300"], "--photo_hw=300 is no size"),
        (["--photo_hw=300,20000"], "above the limit of 16384"),
        (["--single_pass"], "only a zoom can be exported"),
    ):
        place = target if not wrong else tmp_path / "other"
        assert cli.main(["export", str(place), "--checkpoint=MODEL", *wrong]) == 2
        assert re.search(message, capsys.readouterr().err)
        assert not (tmp_path / "other").exists()
