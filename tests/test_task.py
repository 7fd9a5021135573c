"""From configuration files to a run on the real detector, and back from its workdir."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from PIL import Image

from piza_jax.data.tokenize import Tokenizer
from piza_jax.errors import PizaError
from piza_jax.models.params import flatten_state
from piza_jax.peft import select
from piza_jax.piza.detector import PizaDetector, config_from_dict
from piza_jax.training import checkpoint, task
from piza_jax.training import config as configs
from piza_jax.training.optim import OptimizerConfig
from piza_jax.training.writer import read_metrics
from tests import tiny_detector

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for path in (ROOT / "configs").glob("*.py") if path.name != "common.py")


def load(name="scenes.py", *overrides):
    return configs.load_config(str(ROOT / "configs" / name), overrides)


def small(*overrides):
    """Drawn scenes and the smallest detector."""
    config = load(
        "scenes.py:smoke", "data.num_photos=1", "data.photo_wh=(320,240)", "data.canvas_hw=(64,64)", *overrides
    )
    with config.unlocked():
        config.model = ConfigDict(tiny_detector.model_config().to_dict())
        config.model.detector.bert.vocab_size = 256
    return config


@pytest.mark.parametrize("argument", ["", ":smoke"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_config_file_is_complete(path, argument):
    config = configs.load_config(f"{path}{argument}")
    assert configs.from_json(configs.to_json(config)).to_dict() == config.to_dict()
    OptimizerConfig.from_mapping(config.optimizer.to_dict())
    task.sample_config(config)
    model_config = config_from_dict(config.model.to_dict())
    assert model_config.to_dict() == config.model.to_dict()
    if argument:
        assert config.data.kind == "scenes"
        assert config.train.num_steps <= 4


def test_sorec_config_trains_the_papers_parameters():
    config = load("piza_sorec.py")
    model_config = config_from_dict(config.model.to_dict())
    model = nnx.eval_shape(lambda: PizaDetector(model_config, rngs=nnx.Rngs(0)))
    _, state, _ = select.split(model, config.peft)
    sizes = {name: leaf.size for name, leaf in flatten_state(state).items()}
    history = sum(size for name, size in sizes.items() if name.startswith("history/"))
    # Adapters, norms and zoom embedding; with the history encoder the paper's 3.5M.
    assert sum(sizes.values()) - history == 3_164_160 + 96_064 + 131_584
    assert 3_480_000 < sum(sizes.values()) < 3_550_000


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("piza_sorec.py:backbone=resnet", "backbone='resnet' is none of"),
        ("piza_sorec.py:peft=lorra", "peft='lorra' is none of"),
        ("piza_sorec.py:bakcbone=swin_t", "unknown config argument 'bakcbone'"),
        ("scenes.py:smoke=maybe", "'smoke' takes a bool"),
    ],
)
def test_bad_arguments(name, message):
    with pytest.raises(PizaError, match=message):
        load(name)


def test_data_by_config(tmp_path):
    with pytest.raises(PizaError, match=r"needs --config.data.data_dir="):
        task.open_source(load("piza_sorec.py"))
    with pytest.raises(PizaError, match=r"needs --config.data.annotations=... and --config.data.images="):
        task.open_source(load("records.py"))
    with pytest.raises(PizaError, match="data.kind='zip' is none of"):
        task.open_source(load("records.py", "data.kind=zip"))
    scenes = task.open_source(small())
    assert {"image", "name", "id", "expression", "box_xyxy"} == set(scenes[0])
    assert [scenes[index]["id"] for index in range(len(scenes))] == list(range(len(scenes)))
    Image.new("RGB", (100, 80), (9, 9, 9)).save(tmp_path / "a.jpg")
    records = [{"image": "a.jpg", "bbox": [10, 20, 30, 10], "ref": "The dark one", "id": 5}]
    (tmp_path / "records.json").write_text(json.dumps(records))
    source = task.open_source(
        load("records.py", f"data.annotations={tmp_path}/records.json", f"data.images={tmp_path}")
    )
    assert (len(source), source[0]["expression"]) == (1, "The dark one")


def test_tokenizer_and_vocabulary(tmp_path):
    config = small()
    built = task.build_task(config, tmp_path)
    stored = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert config.model.detector.delimiter_ids == stored.delimiter_ids
    assert built.steps_per_epoch == len(task.open_source(config)) / 8
    batch = next(iter(built.dataset))
    assert batch["image"].shape == (8, 64, 64, 3)
    config.model.detector.bert.vocab_size = 20
    with pytest.raises(PizaError, match=r"tokens and model.detector.bert.vocab_size is 20"):
        task.build_task(config, tmp_path / "other")


def test_tokenizer_that_must_be_given(tmp_path):
    class Large:
        def __len__(self):
            return 61_369

    with pytest.raises(PizaError, match=r"give --config.data.tokenizer=DIR"):
        task.open_tokenizer(small(), Large(), tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"")
    config = small(f"pretrained={tmp_path}/weights.safetensors")
    with pytest.raises(PizaError, match=r"give --config.data.tokenizer=DIR"):
        task.open_tokenizer(config, task.open_source(config), tmp_path)
    earlier, later = tmp_path / "earlier", tmp_path / "later"
    task.open_tokenizer(small(), task.open_source(small()), earlier)
    words = task.open_source(small("data.num_photos=3"))
    found = task.open_tokenizer(small(f"pretrained={earlier}"), words, later)
    assert found.vocab_size == Tokenizer.from_file(earlier / "tokenizer.json").vocab_size


@pytest.mark.slow
def test_train_save_and_load(tmp_path):
    seen = {}

    def evaluate(model, step):
        seen[step] = {name: np.asarray(value) for name, value in flatten_state(nnx.state(model, nnx.Param)).items()}
        return {"score": 0.5}

    config = small("train.num_steps=2", "peft=piza_adapter_plus")
    result = task.train(config, tmp_path, evaluate)
    assert result.step == 2
    lines = read_metrics(tmp_path)
    assert {"loss_cls", "loss_bbox", "loss_iou", "dn_loss_cls", "history_stop", "history_progress"} <= set(lines[0])
    assert lines[-1] == {"step": 2, "eval/score": 0.5}
    assert (tmp_path / "frozen").is_dir()
    trainable = (tmp_path / "checkpoints" / "2" / "trainable" / "_METADATA").read_text()
    assert "adapter1" in trainable
    assert "query_embedding" not in trainable
    model, stored = checkpoint.load_model(tmp_path)
    assert stored["model"] == config.model.to_dict()
    loaded = flatten_state(nnx.state(model, nnx.Param))
    assert loaded.keys() == seen[2].keys()
    for name, value in loaded.items():
        np.testing.assert_array_equal(value, seen[2][name], err_msg=name)
    given = task.pretrained_parameters(str(tmp_path), config_from_dict(stored["model"]), loaded)
    assert given.keys() == loaded.keys()

    other = small("train.num_steps=2", "peft=full")
    with pytest.raises(PizaError, match=r"another configuration \(peft: 'piza_adapter_plus' there, 'full' now\)"):
        task.train(other, tmp_path)
    stored_config = checkpoint.read_config(tmp_path)
    with stored_config.unlocked():
        stored_config.model.adapter_dim = 16
    (tmp_path / "config.json").write_text(configs.to_json(stored_config))
    with pytest.raises(PizaError, match=r"belongs to another configuration: .*adapter1.* instead of"):
        checkpoint.load_model(tmp_path)


def test_a_run_from_before_a_model_setting_goes_on_with_its_default(tmp_path):
    config = small()
    checkpoint.prepare_workdir(tmp_path, config)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    old = json.loads((tmp_path / "config.json").read_text())
    for name in ("lora_rank", "lora_alpha", "context_tokens", "condition_dim", "visual_prompts"):
        del old["model"][name]
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert checkpoint.prepare_workdir(tmp_path, config) == []
    config.model.lora_rank = 7
    with pytest.raises(PizaError, match=r"another configuration \(model.lora_rank: 6 there, 7 now\)"):
        checkpoint.prepare_workdir(tmp_path, config)


def test_load_model_needs_a_trained_workdir(tmp_path):
    with pytest.raises(PizaError, match=r"it has no config.json"):
        checkpoint.load_model(tmp_path / "nowhere")
    checkpoint.prepare_workdir(tmp_path, small())
    with pytest.raises(PizaError, match="holds no checkpoint"):
        checkpoint.load_model(tmp_path)


def test_sorec_mini_is_a_source_with_words_of_its_own(tmp_path):
    config = small("data.kind=mini", "data.dataset=sorec_mini_normal", "data.split=train", "data.num_photos=3")
    source = task.open_source(config)
    assert len(source) > 3
    tokenizer = task.open_tokenizer(config, source, tmp_path)
    assert "[UNK]" not in tokenizer.tokens(source[0]["expression"])
    small_targets = task.open_source(small("data.kind=mini", "data.split=val", "data.num_photos=1"))
    x0, y0, x1, y1 = small_targets[0]["box_xyxy"]
    assert (x1 - x0) * (y1 - y0) < 0.001 * 2048 * 1536
    with pytest.raises(PizaError, match=r"needs --config.data.split="):
        task.open_source(small("data.kind=mini", "data.split="))


def test_pretrained_file_that_cannot_be_read(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(PizaError, match=r"weights\.safetensors is damaged or no safetensors file"):
        task.pretrained_parameters(str(tmp_path / "weights.safetensors"), tiny_detector.model_config(), {})


def test_every_setting_of_captions_reaches_them():
    config = load("mini.py:peft=none,stage=relations")
    said = {"max_boxes": 7, "min_phrases": 2, "max_phrases": 3, "sentence_weight": 5.0, "mentions": False}
    config.data.captions.update(said)
    found = dataclasses.asdict(task.caption_config(config))
    data = {name: config.data[name] for name in ("canvas_hw", "max_tokens", "scale_range", "scaled_decode")}
    assert found == {**said, **data}
    assert load("mini.py:peft=none").data.captions.mentions
