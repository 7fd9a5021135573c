"""The stages that make the shipped weights: each starts from the one before, the adapter from the base as it ships."""

from types import SimpleNamespace

import pytest

from benchmarks import mini_weights
from piza_jax import PizaError
from piza_jax.convert import export, load
from piza_jax.training import task


@pytest.fixture
def ran(monkeypatch):
    """What was trained and written, with nothing computed."""
    done = []

    def train(config, workdir):
        done.append((workdir.rpartition("/")[2], config))
        return SimpleNamespace(interrupted=False)

    def save(kind):
        def write(loaded, folder, *base, half):
            assert half
            done.append((kind, loaded, *base))
            folder.mkdir(parents=True)

        return write

    monkeypatch.setattr(task, "train", train)
    monkeypatch.setattr(load, "load_source", lambda source: str(source))
    monkeypatch.setattr(export, "save_whole", save("whole"))
    monkeypatch.setattr(export, "save_adapter", save("adapter_only"))
    monkeypatch.setattr(mini_weights, "_accuracy", lambda *_: "")
    return done


def test_each_stage_starts_from_the_one_before_and_the_adapter_from_the_base_as_it_ships(ran, tmp_path):
    words = ["--set", "relations.train.num_steps=7", "--data_dir=DATA"]
    assert mini_weights.main([f"--output={tmp_path}", "--pretrained=START", *words]) == 0
    names = [one[0] for one in ran]
    assert names == ["towers", "captions", "sentences", "relations", "whole", "adapter", "adapter_only"]
    configs = {one[0]: one[1] for one in ran}
    starts = [configs[name].pretrained.rpartition("/")[2] for name in mini_weights.STAGES]
    assert starts == ["START", "towers", "captions", "sentences", "piza_mini_base"]
    assert configs["whole"] == str(tmp_path / "relations")
    assert ran[-1] == ("adapter_only", str(tmp_path / "adapter"), str(tmp_path / "piza_mini_base"))
    assert configs["relations"].train.num_steps == 7
    assert configs["sentences"].train.num_steps != 7
    assert configs["adapter"].data.data_dir == "DATA"
    ran.clear()
    assert mini_weights.main([f"--output={tmp_path}", "--stages", "relations", "captions"]) == 0
    assert [one[0] for one in ran] == ["captions", "relations"]  # what is written already stays


def test_an_adapter_alone_is_laid_over_the_weights_that_it_started_from(ran, tmp_path):
    arguments = [f"--output={tmp_path}", "--stages", "adapter", "--pretrained=piza-mini-base", "--data_dir=DATA"]
    assert mini_weights.main(arguments) == 0
    assert [one[0] for one in ran] == ["adapter", "adapter_only"]
    assert ran[1][1:] == (str(tmp_path / "adapter"), "piza-mini-base")


def test_what_cannot_run_is_said_before_anything_does(ran, tmp_path, capsys):
    assert mini_weights.main([f"--output={tmp_path}"]) == 2
    assert "the stage adapter needs --data_dir" in capsys.readouterr().out
    assert mini_weights.main([f"--output={tmp_path}", "--stages", "towers", "--set", "train.num_steps=1"]) == 2
    assert "--set train.num_steps=1: it must begin with one of the stages towers" in capsys.readouterr().out
    with pytest.raises(PizaError, match="unknown config key"):
        mini_weights.make(mini_weights.Settings(tmp_path, ("towers",), changes=("towers.no.such=1",)))
    assert not ran
