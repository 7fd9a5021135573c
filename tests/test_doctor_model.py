"""piza doctor on checkpoints of every kind: recognised and counted without loading, or refused with the reason."""

import dataclasses
import hashlib
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file

from piza_jax.cli import main
from piza_jax.convert import export, idea, mmdet
from piza_jax.convert.check import written
from piza_jax.convert.hugging_face import SPECIAL_TOKENS
from piza_jax.convert.load import Loaded, load_source
from piza_jax.data.records import Record
from piza_jax.data.scenes import write_scenes
from piza_jax.data.tokenize import Tokenizer
from piza_jax.doctor import diagnose
from piza_jax.doctor.model import Weights, memory, open_checkpoint, token_lengths
from piza_jax.errors import PizaError
from piza_jax.models.config import DetectorConfig
from piza_jax.models.params import flatten_state, unflatten_state
from piza_jax.peft import select
from piza_jax.piza.abstract import abstract_detector
from piza_jax.piza.detector import PizaConfig, PizaDetector
from piza_jax.piza.plain import plain_config
from piza_jax.training import checkpoint
from tests import tiny_task
from tests.test_doctor import only
from tests.test_load_files import MM, ORIGINAL
from tests.torch_models import torch
from tfds_sorec.build import build

WORDS = "The red car in the left part of the street."


def of_ones(config: PizaConfig) -> PizaDetector:
    """A detector whose parameters are all 1, which takes no time to initialise."""
    model = abstract_detector(config)
    state = nnx.state(model, nnx.Param)
    ones = {name: jnp.ones(leaf.shape, leaf.dtype) for name, leaf in flatten_state(state).items()}
    nnx.update(model, unflatten_state(state, ones))
    return model


@pytest.fixture(scope="module")
def tuned() -> Loaded:
    tokenizer = Tokenizer.train([WORDS], 100)
    detector = DetectorConfig.preset("tiny", delimiter_ids=tokenizer.delimiter_ids, encoder_layers=1, decoder_layers=1)
    detector = dataclasses.replace(detector, denoising_queries=0)
    model = of_ones(PizaConfig(detector=detector, adapter_dim=8))
    return Loaded(model, tokenizer, 24, origin="test", method="piza_adapter_plus")


@pytest.fixture(scope="module")
def kinds(tuned, tmp_path_factory) -> dict[str, Path]:
    """The model as whole export, adapter and workdir of three steps; others in the forms of other code bases."""
    place = tmp_path_factory.mktemp("kinds")
    export.save_whole(tuned, place / "whole")
    export.save_adapter(tuned, place / "adapter")
    data = {"data": {"max_tokens": 24}, "peft": tuned.method, "model": tuned.config.to_dict()}
    checkpoint.prepare_workdir(place / "run", ConfigDict(data))
    tuned.tokenizer.save(place / "run" / "tokenizer.json")
    _, train, frozen = select.split(tuned.model, tuned.method)
    with checkpoint.Checkpoints(place / "run") as saves:
        saves.save_frozen(flatten_state(frozen))
        saves.save(3, flatten_state(train), {}, iter(tiny_task.make_dataset(8)))
    ours = tuned.config.detector
    halves = {"text_heads": ours.heads // 2, "fusion_heads": ours.heads // 2}
    halves |= {"text_hidden": ours.hidden // 2, "fusion_dim": ours.hidden // 2}
    plain = of_ones(
        plain_config(PizaConfig(detector=dataclasses.replace(ours, **halves, delimiter_ids=SPECIAL_TOKENS)))
    )
    export.save_hugging_face(Loaded(plain, None, 24), place / "hf")
    original = written(of_ones(plain_config(PizaConfig(detector=ORIGINAL))), idea.IDEA)
    torch.save({"model": {f"module.{name}": torch.tensor(value) for name, value in original.items()}}, place / "o.pth")
    other = of_ones(PizaConfig(detector=MM, adapter_dim=8, zoom_projection="per_adapter"))
    tensors = {name: torch.tensor(value) for name, value in written(other, mmdet.MMDET).items()}
    torch.save({"state_dict": tensors}, place / "mm.pth")
    adapter = {name: value for name, value in tensors.items() if "adapter" in name or "zoom_embedding" in name}
    torch.save(adapter, place / "piza_adapter.pth")
    return {name: place / name for name in ("whole", "adapter", "run", "hf", "o.pth", "mm.pth", "piza_adapter.pth")}


def test_every_kind_is_recognised_and_counted_as_loading_counts_it(tuned, kinds):
    origins = {"whole": "export", "adapter": "export", "run": "workdir", "hf": "hugging_face", "o.pth": "idea"}
    for name, origin in {**origins, "mm.pth": "mmdet"}.items():
        weights = open_checkpoint(kinds[name])
        assert weights.seen.origin == origin
        assert weights.seen.alone == (name == "adapter")
        model = tuned.model if name in ("whole", "adapter", "run") else load_source(kinds[name]).model
        assert weights.total == select.count(nnx.state(model, nnx.Param))
        trained = [
            value
            for path, value in flatten_state(nnx.state(model, nnx.Param)).items()
            if select.is_trainable("none" if name in ("hf", "o.pth") else "piza_adapter_plus", path)
        ]
        assert weights.trainable == sum(value.size for value in trained)
    seen = open_checkpoint(kinds["piza_adapter.pth"]).seen
    assert (seen.origin, seen.alone, seen.model) == ("piza_adapter", True, None)


def test_files_have_the_hashes_that_sha256sum_prints(kinds, capsys):
    assert main(["doctor", f"--checkpoint={kinds['whole']}", "--json"]) == 0
    checks = {one["name"]: one for one in json.loads(capsys.readouterr().out)["checks"] if one["group"] == "checkpoint"}
    digest = hashlib.sha256((kinds["whole"] / "model.safetensors").read_bytes()).hexdigest()
    assert checks["files"]["values"]["sha256"] == digest
    assert digest in checks["files"]["found"]
    assert checks["tokenizer"]["status"] == "ok"
    run = only(diagnose(checkpoint=kinds["run"]), "files")
    lines = "".join(f"{one}  {name}\n" for name, one in run.values["files"].items())
    assert run.values["sha256"] == hashlib.sha256(lines.encode()).hexdigest()
    for name, one in run.values["files"].items():
        assert hashlib.sha256((kinds["run"] / name).read_bytes()).hexdigest() == one


def test_weights_without_tokenizer_are_a_warning_and_one_can_be_given(kinds, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert main(["doctor", f"--checkpoint={kinds['piza_adapter.pth']}"]) == 0
    printed = capsys.readouterr().out
    assert "format: piza_adapter, an adapter without its base" in printed
    assert "warning tokenizer: none beside the weights" in printed
    given = diagnose(checkpoint=kinds["piza_adapter.pth"], tokenizer=kinds["whole"])
    assert only(given, "tokenizer").status == "ok"


def test_tensors_that_do_not_fit_fail_with_their_names(kinds, tmp_path):
    values = load_file(kinds["whole"] / "model.safetensors")
    first = sorted(values)[0]
    for file in kinds["whole"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for change, message in (
        ({first: np.zeros((1, 2, 3), np.float32)}, f"{first} is (1, 2, 3) instead of"),
        ({"more": np.zeros(1, np.float32)}, "more is unknown to the model"),
    ):
        save_file({**values, **change}, tmp_path / "model.safetensors")
        found = only(diagnose(checkpoint=tmp_path), "format")
        assert found.status == "failed"
        assert message in found.found
    tensors = torch.load(kinds["mm.pth"])["state_dict"]
    gone = next(name for name in tensors if name.endswith("sampling_offsets.bias"))
    (tmp_path / "mm").mkdir()  # without a tokenizer
    less = {name: value for name, value in tensors.items() if name != gone}
    torch.save({"state_dict": less}, tmp_path / "mm" / "m.pth")
    with pytest.raises(PizaError, match=f"{gone} is missing"):
        open_checkpoint(tmp_path / "mm" / "m.pth")
    assert "there is nothing at" in only(diagnose(checkpoint=tmp_path / "none"), "format").found


def test_a_checkpoint_of_another_configuration_fails(kinds, tmp_path):
    (tmp_path / "checkpoints").symlink_to(kinds["run"] / "checkpoints")
    (tmp_path / "frozen").symlink_to(kinds["run"] / "frozen")
    config = json.loads((kinds["run"] / "config.json").read_text())
    config["model"]["adapter_dim"] = 16
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = only(diagnose(checkpoint=tmp_path), "format")
    assert found.status == "failed"
    assert "belongs to another configuration" in found.found


def test_tokens_of_the_data_are_held_against_the_limit(kinds, tmp_path, capsys):
    write_scenes(tmp_path, 5, size=(320, 240))
    records = json.loads((tmp_path / "val.json").read_text())
    (tmp_path / "val.json").write_text(json.dumps([{**records[0], "ref": 3 * WORDS}]))
    build(tmp_path, tmp_path / "data")
    assert main(["doctor", f"--data_dir={tmp_path / 'data'}", f"--checkpoint={kinds['run']}"]) == 1
    printed = capsys.readouterr().out
    assert "checkpoint\n  ok      format: workdir, step 3; method piza_adapter_plus\n" in printed
    assert "FAILED  token lengths: 1 are too long, first id 0 of val: longest " in printed
    weights = open_checkpoint(kinds["run"])
    count = len(weights.seen.tokenizer.tokens(WORDS))
    short, long = (Record(5, "a.jpg", text, (0, 0, 1, 1)) for text in (WORDS, f"{WORDS} {WORDS} {WORDS}"))
    (good,) = token_lengths(weights, {"val": [short]})
    assert (good.status, good.values["longest"]) == ("ok", {"val": count})
    (bad,) = token_lengths(weights, {"val": [short], "train": [short, long]})
    assert bad.status == "failed"
    assert bad.found.startswith("1 are too long, first id 5 of train: ")
    assert bad.values["longest"]["train"] > weights.seen.max_tokens >= count


def test_memory_and_disk_follow_from_the_counts(kinds):
    seen = open_checkpoint(kinds["whole"]).seen
    weights = Weights(seen, total=1000, trainable=100)
    assert (weights.inference_bytes, weights.training_bytes, weights.disk_bytes) == (4000, 5200, 8400)
    assert [memory(weights, total, "gpu device")[0].status for total in (3000, 5000, 8000)] == [
        "failed",
        "warning",
        "ok",
    ]
    found = only(diagnose(checkpoint=kinds["whole"]), "disk")
    assert found.values["needed_bytes"] == open_checkpoint(kinds["whole"]).disk_bytes
