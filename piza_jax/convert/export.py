"""Exports: our own directory, whole or adapter only, and a directory that transformers reads.

Our own directory holds piza.json (configuration), tokenizer.json and the weights under our names, in model.safetensors
or, for an adapter on top of a base, in adapter.safetensors, which holds what the fine-tuning method trains and a hash
of everything else: the adapter loads onto that base and onto no other.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from piza_jax.convert import hugging_face
from piza_jax.convert.load import EXPORT, Loaded, check_tokenizer, load_source, optional_tokenizer, read_json
from piza_jax.convert.tensors import open_weights
from piza_jax.data.preprocess import Preprocessing
from piza_jax.errors import PizaError
from piza_jax.files import new_folder
from piza_jax.models.config import DetectorConfig
from piza_jax.models.params import check_same, flatten_state, unflatten_state
from piza_jax.peft import select
from piza_jax.piza.abstract import abstract_detector
from piza_jax.piza.detector import PizaDetector, config_from_dict

FORMAT = 1
WEIGHTS, ADAPTER, TOKENIZER = "model.safetensors", "adapter.safetensors", "tokenizer.json"

# Fields of the detector that training and speed depend on, not what its weights mean.
_FREE = ("denoising_queries", "label_noise", "box_noise", "label_classes", "dtype", "remat", "scan_layers")


def save_whole(loaded: Loaded, folder: str | os.PathLike[str], *, half: bool = False) -> None:
    """Write a whole model to a new folder.

    Args:
        loaded: the model.
        folder: where to.
        half: store the weights in float16, for half the space and with its rounding; they are computed with in float32.

    Raises:
        PizaError: the folder is in use or cannot be written, or a weight that float16 cannot hold.
    """
    with new_folder(folder) as place:
        _write(place / WEIGHTS, _stored(_arrays(loaded.model), half))
        _describe(loaded, place, {"kind": "whole"})


def save_adapter(
    loaded: Loaded, folder: str | os.PathLike[str], base: Loaded | None = None, *, half: bool = False
) -> None:
    """Write what the fine-tuning method of a model trained to a new folder.

    Args:
        loaded: the fine-tuned model.
        folder: where to.
        base: the model that it was trained from, to check that it is; None trusts the frozen weights as they are.
        half: see save_whole.

    Raises:
        PizaError: the model has no adapter, its frozen weights are not the base's, or the folder cannot be written.
    """
    if loaded.method in ("none", "full"):
        raise PizaError(f"a model of method {loaded.method!r} has no adapter to save alone; export the whole model")
    if base is not None:
        check_same_detector(base.config.detector, loaded.config.detector, "the base")
    detector = loaded.config.detector if base is None else base.config.detector
    detector = dataclasses.replace(detector, denoising_queries=0)
    values = _arrays(loaded.model)
    alone = abstract_detector(dataclasses.replace(loaded.config, detector=detector))
    own, frozen = _own_names(loaded.method, _parameters(alone))
    digest = _digest({name: values[name] for name in frozen})
    if base is not None:
        given = _arrays(base.model)
        if _digest({name: given[name] for name in frozen}) != digest:
            changed = [name for name in frozen if not np.array_equal(given[name], values[name])]
            raise PizaError(
                f"the model was not trained from this base: {len(changed)} frozen arrays differ, {changed[0]}"
            )
    with new_folder(folder) as place:
        _write(place / ADAPTER, _stored({name: values[name] for name in own}, half))
        _describe(loaded, place, {"kind": "adapter", "frozen_sha256": digest})


def save_hugging_face(loaded: Loaded, folder: str | os.PathLike[str]) -> None:
    """Write a directory that transformers' ``from_pretrained`` reads.

    Raises:
        PizaError: a detector that transformers does not have, or a folder that cannot be written.
    """
    values = hugging_face.config_json(loaded.config.detector, loaded.max_tokens)
    tensors = hugging_face.tensors_of(loaded.model)
    with new_folder(folder) as place:
        save_file(tensors, place / WEIGHTS, metadata={"format": "pt"})
        (place / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        (loaded.preprocessing or Preprocessing()).save(place)
        _save_tokenizer(loaded, place)


def read_export(
    folder: Path, base: "str | os.PathLike[str] | Loaded | None", tokenizer: str | os.PathLike[str] | None
) -> Loaded:
    """Load an export of our own; see load.load_source."""
    about = read_json(folder / EXPORT)
    if about.get("format") != FORMAT:
        raise PizaError(f"{folder / EXPORT} has the format {about.get('format')!r}; this version reads {FORMAT}")
    config = config_from_dict(about["model"])
    found = optional_tokenizer(folder, tokenizer)
    if about["kind"] == "adapter":
        if base is None:
            raise PizaError(
                f"{folder} holds an adapter without its base; give the base that it was trained from "
                f"(frozen weights sha256 {about['frozen_sha256'][:12]})"
            )
        under = base if isinstance(base, Loaded) else load_source(base, tokenizer=tokenizer)
        check_same_detector(under.config.detector, config.detector, f"the base of {folder}")
        detector = dataclasses.replace(config.detector, denoising_queries=0, dtype=under.config.detector.dtype)
        config = dataclasses.replace(config, detector=detector)
        model = abstract_detector(config)
        shapes = _parameters(model)
        own, frozen = _own_names(about["method"], shapes)
        given = _arrays(under.model)
        if _digest({name: given[name] for name in frozen}) != about["frozen_sha256"]:
            raise PizaError(
                f"{folder} is an adapter on other weights: the base has not the frozen weights that it was trained on "
                f"(sha256 {about['frozen_sha256'][:12]}); give the base that it was trained from"
            )
        source = folder / ADAPTER
        stored = open_weights(source)
        check_same({name: shapes[name] for name in own}, {name: stored[name] for name in stored}, os.fspath(source))
        values: Mapping[str, Any] = {**{n: given[n] for n in frozen}, **{n: stored[n] for n in own}}
    else:
        model, source = abstract_detector(config), folder / WEIGHTS
        values = open_weights(source)
    check_tokenizer(config.detector, found, folder)
    seen = about["preprocessing"]
    return Loaded(
        model=_filled(model, values, os.fspath(source)),
        tokenizer=found,
        max_tokens=int(about["max_tokens"]),
        preprocessing=Preprocessing.from_dict(seen, os.fspath(folder / EXPORT)) if seen else None,
        origin="export",
        method=about["method"],
        zoom={key: tuple(value) if isinstance(value, list) else value for key, value in about["zoom"].items()},
    )


def check_same_detector(base: DetectorConfig, wanted: DetectorConfig, named: str) -> None:
    """PizaError that lists where the detector of a base is another than the one wanted."""
    ours, theirs = (dataclasses.asdict(config) for config in (wanted, base))
    other = [
        f"{key} is {theirs[key]}, not {ours[key]}" for key in ours if key not in _FREE and ours[key] != theirs[key]
    ]
    if other:
        raise PizaError(f"{named} is another detector: {'; '.join(other)}")


def _own_names(method: str, names: Collection[str]) -> tuple[list[str], list[str]]:
    """Of a model's parameters those that a method trains or adds, and those of the base that it leaves as they are."""
    own = [name for name in names if select.belongs_to(method, name)]
    return own, sorted(set(names) - set(own))


def _parameters(model: PizaDetector) -> dict[str, Any]:
    return flatten_state(nnx.state(model, nnx.Param))


def _arrays(model: PizaDetector) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in _parameters(model).items()}


def _filled(model: PizaDetector, values: Mapping[str, Any], source: str) -> PizaDetector:
    """An abstract model with the values of our own names in it."""
    state = nnx.state(model, nnx.Param)
    shapes = flatten_state(state)
    check_same(shapes, values, source)
    arrays = {name: jax.device_put(np.asarray(values[name], leaf.dtype)) for name, leaf in shapes.items()}
    nnx.update(model, unflatten_state(state, arrays))
    return model


def _digest(values: Mapping[str, np.ndarray]) -> str:
    """Hash of names, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(values):
        array = np.ascontiguousarray(values[name])
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _stored(values: Mapping[str, np.ndarray], half: bool) -> Mapping[str, np.ndarray]:
    if not half:
        return values
    large = [name for name, value in values.items() if np.abs(value).max(initial=0) > np.finfo(np.float16).max]
    if large:
        raise PizaError(f"{large[0]} has values that float16 cannot hold; store it in float32")
    return {name: value.astype(np.float16) for name, value in values.items()}


def _write(path: Path, values: Mapping[str, np.ndarray]) -> None:
    save_file({name: np.ascontiguousarray(value) for name, value in values.items()}, path)


def _describe(loaded: Loaded, place: Path, more: Mapping[str, Any]) -> None:
    about = {
        "format": FORMAT,
        **more,
        "method": loaded.method,
        "model": loaded.config.to_dict(),
        "max_tokens": loaded.max_tokens,
        "zoom": dict(loaded.zoom),
        "preprocessing": loaded.preprocessing.to_dict() if loaded.preprocessing else None,
    }
    (place / EXPORT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    _save_tokenizer(loaded, place)


def _save_tokenizer(loaded: Loaded, place: Path) -> None:
    if loaded.tokenizer is not None:
        loaded.tokenizer.save(place / TOKENIZER)
        settings = {**loaded.tokenizer.settings(), "model_max_length": loaded.max_tokens}
        (place / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
