"""The models that come with the package: small, whole, and able to find things in scenes that they never saw."""

import json
from pathlib import Path

import numpy as np
import pytest

import piza_jax
from piza_jax import cli
from piza_jax.convert import shipped
from piza_jax.convert.load import load_source
from piza_jax.data.decode import decode_rgb
from piza_jax.data.mini_source import MiniSource
from piza_jax.models.params import flatten_state
from piza_jax.peft import select
from tests.figures import note

MEGABYTE = 10**6


@pytest.fixture(scope="module")
def grounder():
    return piza_jax.load("piza-mini", batch_size=10)


def test_both_take_at_most_twelve_megabytes_and_name_no_place_of_a_machine():
    folders = [shipped.folder_of(name) for name in (shipped.MINI, shipped.MINI_BASE)]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 12 * MEGABYTE
    for file in files:
        if file.name == "piza.json":
            about = json.loads(file.read_text())
            assert not any("/" in str(value) for value in about.values() if isinstance(value, str))


def test_the_adapter_is_the_base_with_less_than_a_twentieth_of_it_trained():
    base, adapted = load_source("piza-mini-base"), load_source("piza-mini")
    assert (base.method, adapted.method) == ("none", "piza_adapter_plus")
    from flax import nnx

    before, after = (flatten_state(nnx.state(one.model, nnx.Param)) for one in (base, adapted))
    frozen = [name for name in before if not select.belongs_to("piza_adapter_plus", name)]
    assert len(frozen) > 100
    for name in frozen:
        np.testing.assert_array_equal(before[name], after[name])
    trained = sum(value.size for name, value in after.items() if select.is_trainable("piza_adapter_plus", name))
    assert trained < 0.05 * sum(value.size for value in before.values())


def test_every_word_of_the_drawn_world_is_a_token():
    tokenizer = load_source("piza-mini").tokenizer
    for split in ("train_s", "test_b"):
        for expression in MiniSource(split, 30).expressions():
            tokens = tokenizer.tokens(expression)
            assert "[UNK]" not in tokens
            assert not any(token.startswith("##") for token in tokens)


@pytest.mark.slow
def test_it_finds_small_things_in_scenes_that_it_never_saw(grounder):
    source = MiniSource("val", 6)
    records = [source[index] for index in range(len(source))]
    photos = [decode_rgb(record["image"], record["name"]) for record in records]
    found = grounder.ground(photos, [record["expression"] for record in records])
    hits = 0
    for record, one in zip(records, found, strict=True):
        x0, y0, x1, y1 = record["box_xyxy"]
        hits += x0 < (one.box[0] + one.box[2]) / 2 < x1 and y0 < (one.box[1] + one.box[3]) / 2 < y1
    assert len(records) >= 50
    note("piza-mini: targets hit in new scenes, share of 1", hits / len(records))
    # A guess from the sentence alone hits one in three hundred.
    assert hits > 0.3 * len(records)


def test_ground_without_a_model_takes_it_and_warns(tmp_path, capsys):
    source = MiniSource("val", 1)
    photo = Path(tmp_path / "scene.jpg")
    photo.write_bytes(source[0]["image"])
    assert cli.main(["ground", str(photo), source[0]["expression"], "--json"]) == 0
    out, err = capsys.readouterr()
    assert "the shipped piza-mini is used, which knows only drawn street scenes" in err
    assert len(json.loads(out)["box"]) == 4
