"""Configuration files: `FILE:arg` plus `--config.a.b=value`, read strictly, and their JSON round trip."""

import ast
import difflib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from piza_jax.errors import PizaError

_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def load_config(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Run a configuration file and apply overrides to it.

    Args:
        spec: path of a Python file that defines get_config(arg: str) -> ConfigDict, with an optional `:arg`.
        overrides: words such as `--config.optimizer.learning_rate=1e-4` (the leading `--config.` or `--` may be left
            out). The value takes the type that the key already has.

    Returns:
        A locked ConfigDict.

    Raises:
        PizaError: no such file, a file without get_config, an unknown key (named with its near matches), a value of
            another type.
    """
    name, _, argument = spec.partition(":")
    path = Path(name)
    if not path.is_file():
        raise PizaError(f"there is no configuration file at {path}; give a path such as configs/piza_sorec.py[:arg]")
    config = _run_file(path, argument)
    apply_overrides(config, overrides)
    config.lock()
    return config


def apply_overrides(config: ConfigDict, overrides: Sequence[str]) -> None:
    """Set `key=value` words on config in place; see load_config."""
    for word in overrides:
        key, equals, text = word.partition("=")
        key = key.removeprefix("--").removeprefix("config.")
        if not equals:
            raise PizaError(f"{word!r} is not of the form --config.key=value")
        *parents, last = key.split(".")
        node = config
        for parent in parents:
            node = node[parent] if isinstance(node, ConfigDict) and parent in node else None
        if not isinstance(node, ConfigDict) or last not in node:
            raise PizaError(f"unknown config key {key!r}; {_near(key, config)}")
        if isinstance(node[last], ConfigDict):
            inner = ", ".join(f"{key}.{name}" for name in node[last])
            raise PizaError(f"config key {key!r} is a group, not a value; set one of {inner}")
        node[last] = parse_value(key, text, node[last])


def parse_value(key: str, text: str, default: Any) -> Any:
    """Read the text of an override as the type of the key's present value; PizaError names the key when it is not."""
    try:
        if isinstance(default, bool):
            return _BOOLEANS[text.lower()]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
        if isinstance(default, str):
            return text
        if default is None:
            return _literal_or_text(text)
        value = ast.literal_eval(text)
        if isinstance(default, (tuple, list)):
            value = value if isinstance(value, (tuple, list)) else (value,)
            return type(default)(value)
    except (ValueError, KeyError, SyntaxError) as error:
        kind = type(default).__name__
        raise PizaError(f"config key {key!r} takes a {kind} such as {default!r}, not {text!r}") from error
    if not isinstance(value, type(default)):
        raise PizaError(f"config key {key!r} takes a {type(default).__name__} such as {default!r}, not {text!r}")
    return value


def to_json(config: ConfigDict | Mapping[str, Any]) -> str:
    """Config as JSON text; from_json gives it back (tuples come back as tuples)."""
    plain = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    return json.dumps(plain, indent=2, allow_nan=False) + "\n"


def from_json(text: str) -> ConfigDict:
    """The ConfigDict of to_json's text; raises json.JSONDecodeError for anything else."""
    config = ConfigDict(_tuples(json.loads(text)))
    config.lock()
    return config


def flatten(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """Nested config -> {"a.b.c": value}; tuples and lists are made equal, so that two configs compare by value."""
    return dict(_walk(config, ""))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ between two flattened configs: {key: (old, new)}; an absent key counts as None."""
    keys = sorted(old.keys() | new.keys())
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def _run_file(path: Path, argument: str) -> ConfigDict:
    module_spec = importlib.util.spec_from_file_location(f"_piza_config_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise PizaError(f"{path} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(module_spec)
    # Configuration files import `configs.common` from the folder above their own, or from where the command runs.
    roots = [str(path.resolve().parent.parent), os.getcwd()]
    sys.path[:0] = roots
    try:
        module_spec.loader.exec_module(module)
    except SyntaxError as error:
        raise PizaError(f"{path} is not a Python file: {error}") from error
    finally:
        for root in roots:
            sys.path.remove(root)
    if not hasattr(module, "get_config"):
        raise PizaError(f"{path} defines no get_config(arg); see configs/scenes.py for the form")
    config = module.get_config(argument)
    if not isinstance(config, ConfigDict):
        raise PizaError(f"get_config of {path} returned {type(config).__name__}, not an ml_collections.ConfigDict")
    return config


def _literal_or_text(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _near(key: str, config: ConfigDict) -> str:
    names = list(flatten(config))
    by_last = [name for name in names if name.split(".")[-1] == key.split(".")[-1]]
    close = by_last + [name for name in difflib.get_close_matches(key, names, n=3, cutoff=0.6) if name not in by_last]
    if close:
        return f"did you mean {' or '.join(close[:4])}?"
    return f"the groups are {', '.join(config)}"


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _walk(config: ConfigDict | Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, (ConfigDict, Mapping)):
            yield from _walk(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _tuples(list(value)) if isinstance(value, (list, tuple)) else value
