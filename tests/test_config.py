"""Configuration files and overrides."""

import textwrap

import pytest
from ml_collections import ConfigDict

from piza_jax.errors import PizaError
from piza_jax.training import config as configs

FILE = """
from ml_collections import ConfigDict

def get_config(arg=""):
    return ConfigDict({
        "seed": 0, "name": "plain", "flag": False, "rates": (1.0, 2.0), "limit": None,
        "optimizer": {"learning_rate": 1e-4, "warmup_steps": 10}, "arg": arg,
    })
"""


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "configs" / "plain.py"
    path.parent.mkdir()
    path.write_text(textwrap.dedent(FILE))
    return path


def test_argument_and_overrides_keep_types(config_file):
    config = configs.load_config(
        f"{config_file}:smoke",
        ["--config.optimizer.learning_rate=3", "--flag=true", "config.rates=(3.0,)", "seed=7", "limit=5", "name=a b"],
    )
    assert config.arg == "smoke"
    assert config.optimizer.learning_rate == 3.0
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.flag is True
    assert config.rates == (3.0,)
    assert (config.seed, config.limit, config.name) == (7, 5, "a b")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--config.optimizer.learning_rat=1", "unknown config key 'optimizer.learning_rat'.*optimizer.learning_rate"),
        ("--config.learning_rate=1", "unknown config key 'learning_rate'.*did you mean optimizer.learning_rate"),
        ("--config.zzz=1", "unknown config key 'zzz'.*the groups are"),
        ("--config.seed.deeper=1", "unknown config key 'seed.deeper'"),
        ("--config.optimizer=1", "is a group.*optimizer.learning_rate"),
        ("--config.seed=1.5", "'seed' takes a int such as 0, not '1.5'"),
        ("--config.flag=maybe", "'flag' takes a bool"),
        ("--config.rates=(1", "'rates' takes a tuple"),
        ("--config.seed", "not of the form"),
    ],
)
def test_bad_override_is_named(config_file, word, message):
    with pytest.raises(PizaError, match=message):
        configs.load_config(str(config_file), [word])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no configuration file at"),
        ("x = 1", "defines no get_config"),
        ("def get_config(arg): return {}", "returned dict"),
        ("def get_config(arg) return", "not a Python file"),
    ],
)
def test_bad_file_is_named(tmp_path, content, message):
    path = tmp_path / "broken.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PizaError, match=message):
        configs.load_config(str(path))


def test_json_round_trip(config_file):
    config = configs.load_config(str(config_file))
    again = configs.from_json(configs.to_json(config))
    assert again.to_dict() == config.to_dict()
    assert isinstance(again.rates, tuple)


def test_loaded_config_is_locked(config_file):
    config = configs.load_config(str(config_file))
    with pytest.raises(AttributeError, match="new_key"):
        config.new_key = 1


def test_differences_by_value():
    old = configs.flatten(ConfigDict({"a": {"b": 1, "c": (1, 2)}, "d": 1}))
    new = configs.flatten({"a": {"b": 2, "c": [1, 2]}, "e": 3})
    assert configs.differences(old, new) == {"a.b": (1, 2), "d": (1, None), "e": (None, 3)}
