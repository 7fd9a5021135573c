"""piza convert, and the other commands on what it wrote and read."""

import json

import numpy as np
import pytest
from PIL import Image

from piza_jax.cli import main
from piza_jax.data.tokenize import Tokenizer
from tests import torch_models
from tests.torch_models import transformers

pytestmark = pytest.mark.slow

SENTENCE = "A red patch in the left part."


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return torch_models.hub_folder(tmp_path_factory.mktemp("hub") / "model")


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_there_and_back_again(source, photo, tmp_path, capsys):
    """transformers -> ours -> transformers: each step says what it did, and the boxes stay the same."""
    ours, back = tmp_path / "ours", tmp_path / "back"
    assert main(["convert", str(source), str(ours), "--report"]) == 0
    text = capsys.readouterr().out
    assert (
        "left out: model.backbone.conv_encoder.model.swin.layernorm.bias and 1 more (the backbone's final norm" in text
    )
    assert "decoder layer 0, boxes" in text
    assert text.splitlines()[-1] == f"{ours}: piza from hugging_face"
    assert main(["convert", str(ours), str(back), "--to", "hugging_face"]) == 0
    model, info = transformers.GroundingDinoForObjectDetection.from_pretrained(back, output_loading_info=True)
    assert not any(info.values())
    assert model.config.num_queries == 30
    theirs = transformers.AutoTokenizer.from_pretrained(back)
    ours_ids, is_token = Tokenizer.from_directory(source).encode(SENTENCE, 40)
    assert theirs(SENTENCE)["input_ids"] == ours_ids[is_token].tolist()
    capsys.readouterr()
    found = []
    for folder in (source, ours, back):
        words = ["ground", str(photo), SENTENCE, "--checkpoint", str(folder), "--single_pass", "--json"]
        assert main(words) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1] == found[2]
    assert len(found[0]["steps"]) == 1


def test_evaluate_a_converted_detector(source, photo, tmp_path, capsys):
    entry = {"image": photo.name, "bbox": [10, 10, 30, 30], "ref": SENTENCE, "id": 7}
    (tmp_path / "records.json").write_text(json.dumps([entry]))
    words = ["evaluate", "--checkpoint", str(source), "--single_pass", "--json", "--batch_size", "1"]
    assert main([*words, "--annotations", str(tmp_path / "records.json"), "--images", str(photo.parent)]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["records"]["all"]["count"] == 1
    assert main(words) == 2
    assert "say what to evaluate on" in capsys.readouterr().err


def test_refusals_are_one_line(source, tmp_path, capsys):
    for words, message in (
        (["convert", str(source), str(tmp_path / "x"), "--to", "adapter"], "has no adapter to save alone"),
        (["convert", str(tmp_path / "nothing"), str(tmp_path / "x")], "there is nothing at"),
        (["convert", str(source / "model.safetensors"), str(tmp_path / "x")], "give its folder"),
        (["convert", str(source), str(tmp_path / "x"), "--tokenizer", str(tmp_path)], "tokenizer"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not (tmp_path / "x").exists()
