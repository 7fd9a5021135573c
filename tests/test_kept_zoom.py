"""A second start of ``piza ground`` takes the zoom that the first one kept, for the very same thing only."""

import os

import jax
import numpy as np
import pytest
from PIL import Image

import piza_jax
from piza_jax import cli, compile_cache, kept_zoom
from tests import fake_detector
from tests.fake_detector import Quiet

SENTENCE, FOUND = "red", "box (x0 y0 x1 y1 px): 70.0 40.0 100.0 60.0"


@pytest.fixture
def start(tmp_path, monkeypatch, capsys):
    """piza ground as a new process would run it: the numbers it prints, and whether it had to open the model."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "model").write_bytes(b"weights")
    pixels = np.full((120, 160, 3), 90, np.uint8)
    pixels[40:60, 70:100] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    monkeypatch.setattr(compile_cache, "folder", lambda: tmp_path / "cache")
    zoom = {"canvas_hw": (96, 96), "min_crop_px": 16.0, "crop_method": "dense", "max_steps": 3}
    opened = []

    def grounder(options, method, *_):
        opened.append(options)
        steps = {"max_steps": options.max_steps} if options.max_steps else {}
        return piza_jax.load(fake_detector.loaded(kind=Quiet, **zoom), batch_size=2, **steps)

    monkeypatch.setattr(cli, "_grounder", grounder)

    def run(*words, photo="photo.png"):
        opened.clear()
        code = cli.main(["ground", str(tmp_path / photo), SENTENCE, f"--checkpoint={tmp_path / 'model'}", *words])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out, bool(opened), err

    run.folder = tmp_path
    return run


def kept(start):
    return sorted((start.folder / "cache" / "zooms").iterdir())


def test_the_second_start_opens_no_model_and_finds_the_same(start):
    first, second = start(), start()
    assert (first[1], second[1]) == (True, False)
    assert first[0] == second[0]
    assert FOUND in first[0]
    assert len(kept(start)) == 1


def test_what_is_kept_serves_the_very_same_thing_only(start, monkeypatch):
    assert start()[1]
    assert start("--max_steps=1")[1]  # other options
    assert start("--max_steps=1")[0].count("step") == 1
    Image.new("RGB", (600, 100)).save(start.folder / "wide.png")
    assert start(photo="wide.png")[1]  # another canvas
    monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", "highest")
    assert start()[1]  # another setting of JAX
    (start.folder / "model").write_bytes(b"other weights")
    assert start()[1]  # other weights
    monkeypatch.setattr(kept_zoom, "PACKAGE", start.folder)
    (start.folder / "changed.py").write_text("")
    assert start()[1]  # other code
    assert not start()[1]
    assert len(kept(start)) == 6


@pytest.mark.parametrize("largest", [0, kept_zoom.SMALL])
def test_a_small_model_is_compiled_in_haste_and_finds_the_same(start, monkeypatch, largest):
    monkeypatch.setattr(kept_zoom, "SMALL", largest)
    used = []
    compile_ = jax.stages.Lowered.compile
    monkeypatch.setattr(
        jax.stages.Lowered, "compile", lambda self, options=None: used.append(options) or compile_(self, options)
    )
    assert FOUND in start()[0]
    assert FOUND in start()[0]
    assert used == [kept_zoom.HASTY if largest else {}] * 4  # text and zoom, twice


def test_a_damaged_one_is_made_again(start):
    start()
    (folder,) = kept(start)
    (folder / "weights.safetensors").write_bytes(b"")
    out, opened, _ = start()
    assert opened
    assert FOUND in out
    assert not start()[1]


def test_the_oldest_go(start, monkeypatch):
    monkeypatch.setattr(kept_zoom, "MOST", 2)
    for steps in (1, 2):
        start(f"--max_steps={steps}")
        os.utime(kept(start)[0], (steps, steps))
    start("--max_steps=1")
    assert start("--max_steps=3")[1]
    assert len(kept(start)) == 2
    assert not start("--max_steps=3")[1]


def test_what_cannot_be_kept_is_found_all_the_same(start):
    (start.folder / "cache" / "zooms").write_text("a file in the way")
    out, opened, err = start()
    assert opened
    assert FOUND in out
    assert "this zoom is not kept for the next start" in err


@pytest.mark.parametrize("reason", ["no cache", "large weights", "another way to look"])
def test_nothing_is_kept_where_it_would_not_serve(start, monkeypatch, reason):
    if reason == "no cache":
        monkeypatch.setattr(compile_cache, "folder", lambda: None)
    if reason == "large weights":
        monkeypatch.setattr(kept_zoom, "LARGEST", 5)
    words = ["--method=single"] if reason == "another way to look" else []
    assert start(*words)[1]
    assert start(*words)[1]
    assert not (start.folder / "cache" / "zooms").exists()
