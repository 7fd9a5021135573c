"""Weights that ship: found by name, small and whole; and what the commands do with and without them."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import piza_jax
from piza_jax import cli, shipped
from piza_jax.convert.export import check_same_detector
from piza_jax.convert.load import load_source, resolve
from piza_jax.data.mini_source import MiniSource
from piza_jax.errors import PizaError
from piza_jax.grounder import open_model
from piza_jax.piza.detector import config_from_dict
from piza_jax.training.config import load_config
from tests.test_task import ROOT

BASE = shipped.folder_of(shipped.MINI_BASE)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with the shipped base, and under piza-mini once more, so that its adapter need not be there."""
    weights = tmp_path / "weights"
    shutil.copytree(BASE, weights / "piza_mini_base")
    shutil.copytree(BASE, weights / "piza_mini")
    monkeypatch.setattr(shipped, "_WEIGHTS", weights)
    monkeypatch.setattr(shipped, "_BASES", {})
    return weights


def test_the_base_is_small_and_belongs_to_the_package():
    assert sum(path.stat().st_size for path in BASE.iterdir()) < 11e6
    assert {path.name for path in BASE.iterdir()} >= {"model.safetensors", "piza.json", "tokenizer.json"}
    assert 'piza_jax = ["weights/**/*"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_base_is_that_of_the_configuration():
    loaded = open_model(shipped.MINI_BASE)
    wanted = load_config(str(ROOT / "configs" / "mini.py:peft=none"), [])
    found = dataclasses.replace(loaded.config.detector, delimiter_ids=wanted.model.detector.delimiter_ids)
    check_same_detector(found, config_from_dict(wanted.model.to_dict()).detector, "the base")
    assert not loaded.config.history
    for sentence in MiniSource("val", 2).expressions():
        assert "[UNK]" not in loaded.tokenizer.tokens(sentence)


def test_a_model_that_was_trained_to_look_once_zooms_by_rule_where_that_is_asked_for():
    loaded = open_model(shipped.MINI_BASE)
    assert loaded.zoom["max_steps"] == 1
    asked = ({}, {"training_free": True}, {"method": "training_free"}, {"training_free": True, "max_steps": 2})
    assert [piza_jax.load(loaded, **way).zoom_config.max_steps for way in asked] == [1, 5, 5, 2]


def test_names_stand_for_folders_unless_one_is_there(tmp_path, monkeypatch):
    assert resolve(shipped.MINI_BASE) == BASE
    monkeypatch.chdir(tmp_path)
    (tmp_path / shipped.MINI_BASE).mkdir()
    assert resolve(shipped.MINI_BASE) != BASE
    with pytest.raises(PizaError, match="is no model"):
        load_source(shipped.MINI_BASE)
    with pytest.raises(PizaError, match="hub name such as owner/model"):
        resolve("piza-maxi")


def test_an_adapter_that_ships_brings_its_base(package, monkeypatch):
    asked = []
    monkeypatch.setattr(shipped, "_BASES", {shipped.MINI: shipped.MINI_BASE})
    monkeypatch.setattr("piza_jax.convert.export.read_export", lambda place, base, _: asked.append((place, base)))
    load_source(shipped.MINI)
    load_source(shipped.MINI_BASE)
    assert asked == [(package / "piza_mini", shipped.MINI_BASE), (package / "piza_mini_base", None)]


@pytest.mark.slow
def test_without_a_checkpoint_piza_mini_looks_and_says_so(package, tmp_path, capsys):
    source = MiniSource("val", 1)
    path = tmp_path / "street.jpg"
    path.write_bytes(source[0]["image"])
    words = ["ground", str(path), source[0]["expression"], "--json", "--max_steps=1"]
    assert cli.main(words) == 0
    shown = capsys.readouterr()
    assert "piza-mini looks" in shown.err
    assert "drawn streets" in shown.err
    named = piza_jax.load(shipped.MINI_BASE, max_steps=1).ground(path, source[0]["expression"])
    assert json.loads(shown.out) == json.loads(json.dumps(named.to_dict()))
    assert np.isfinite(named.box).all()


def test_without_a_checkpoint_the_page_shows_piza_mini(package, capsys, monkeypatch):
    shown = {}
    monkeypatch.setattr("piza_jax.demo.server.serve", lambda models, *rest: shown.update(models))
    assert cli.main(["demo"]) == 0
    assert list(shown) == ["piza-mini"]
    assert "drawn streets" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["ground", "a.jpg", "The red car."], ["detect", "a.jpg", "a car."], ["demo"]])
def test_without_piza_mini_a_model_must_be_named(package, command, capsys):
    shutil.rmtree(package / "piza_mini")
    assert cli.main(command) == 2
    assert "--checkpoint=MODEL" in capsys.readouterr().err
