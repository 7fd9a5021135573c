"""A detector from any source of weights, whose format is recognised: ``load_source(path)``."""

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from piza_jax.convert import hugging_face, idea, mmdet
from piza_jax.convert.check import fill, written
from piza_jax.convert.lazy import shapes_of
from piza_jax.convert.tensors import open_weights
from piza_jax.data.preprocess import Preprocessing
from piza_jax.data.tokenize import Tokenizer
from piza_jax.data.tokenizer_files import find_tokenizer
from piza_jax.errors import PizaError
from piza_jax.models.config import DetectorConfig
from piza_jax.piza.abstract import abstract_detector
from piza_jax.piza.detector import PizaConfig, PizaDetector
from piza_jax.piza.plain import plain_config
from piza_jax.shipped import base_of, folder_of, resolve

EXPORT = "piza.json"  # what an export of our own is recognised by
MAX_TOKENS = 256  # of releases that carry no configuration


@dataclass(frozen=True)
class Loaded:
    """A filled detector with what belongs to it.

    Attributes:
        model: the weights.
        tokenizer: of the source, or None where it ships none and none was given.
        max_tokens: most tokens of an expression.
        preprocessing: how the source sees a photo in a single pass; None for a model of piza train, whose views have
            the zoom's canvas.
        origin: the format, such as "hugging_face".
        method: the fine-tuning method that made it (peft/select.py), "none" for a plain detector.
        zoom: fields of ZoomConfig that the model was trained with.
        ignored: foreign tensors without a place in the model, with the reasons.
    """

    model: PizaDetector
    tokenizer: Tokenizer | None
    max_tokens: int = MAX_TOKENS
    preprocessing: Preprocessing | None = None
    origin: str = ""
    method: str = "none"
    zoom: Mapping[str, Any] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)

    @property
    def config(self) -> PizaConfig:
        """The model's configuration."""
        return self.model.config


def load_source(
    path: str | os.PathLike[str],
    *,
    base: "str | os.PathLike[str] | Loaded | None" = None,
    tokenizer: str | os.PathLike[str] | None = None,
) -> Loaded:
    """Load a detector.

    Args:
        path: a transformers directory or hub name (GroundingDINO, MM-GroundingDINO), a .pth of IDEA-Research's
            GroundingDINO or of mmdetection's MM-GroundingDINO, the released ``piza_adapter.pth``, an export of our
            own, whole or adapter only, or the name of weights that ship ("piza-mini", "piza-mini-base").
        base: what an adapter is laid over: any source, or one that is loaded already.
        tokenizer: folder or file of the tokenizer, for sources that ship none.

    Raises:
        PizaError: nothing there, an unknown format, damaged files, tensors left over on either side, an adapter without
            its base or on another one.
    """
    place = resolve(path)
    if base is None and place == folder_of(path):
        base = base_of(path)
    if place.is_dir():
        if (place / EXPORT).is_file():
            from piza_jax.convert.export import read_export

            return read_export(place, base, tokenizer)
        return _from_hugging_face(place, tokenizer)
    return _from_file(place, base, tokenizer)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; PizaError if there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PizaError(f"cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise PizaError(f"{path} holds no JSON object")
    return values


def _from_hugging_face(folder: Path, tokenizer: str | os.PathLike[str] | None) -> Loaded:
    if not (folder / "config.json").is_file():
        raise PizaError(
            f"{folder} is no model: it has neither {EXPORT} (an export of piza) nor config.json (transformers, or a "
            "work directory of piza train)"
        )
    values = read_json(folder / "config.json")
    detector = hugging_face.read_config(values, os.fspath(folder / "config.json"))
    found = optional_tokenizer(folder, tokenizer)
    check_tokenizer(detector, found, folder)
    model = abstract_detector(plain_config(PizaConfig(detector=detector)))
    names = hugging_face.names(detector.shared_box_head, detector.shared_class_head)
    ignored = fill(model, open_weights(folder), names, where=os.fspath(folder))
    settings = folder / "preprocessor_config.json"
    preprocessing = Preprocessing.from_file(settings) if settings.is_file() else Preprocessing()
    limit = min(int(values.get("max_text_len", MAX_TOKENS)), detector.bert.max_positions)
    return Loaded(model, found, limit, preprocessing, "hugging_face", ignored=ignored)


def optional_tokenizer(folder: Path, given: str | os.PathLike[str] | None) -> Tokenizer | None:
    """Of the source, or None: weights can be converted without one."""
    try:
        return find_tokenizer(folder, given)
    except PizaError:
        if given is not None:
            raise
        return None


def check_tokenizer(detector: DetectorConfig, tokenizer: Tokenizer | None, where: Path) -> None:
    """PizaError if a tokenizer is given that does not belong to the text backbone."""
    if tokenizer is None:
        return
    if tokenizer.vocab_size > detector.bert.vocab_size:
        raise PizaError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the text backbone of {where} "
            f"{detector.bert.vocab_size}; give the tokenizer that belongs to it"
        )
    if tuple(tokenizer.delimiter_ids) != tuple(detector.delimiter_ids):
        raise PizaError(
            f"the tokenizer's [CLS], [SEP], full stop and question mark are {tuple(tokenizer.delimiter_ids)}, and "
            f"{where} was trained with {tuple(detector.delimiter_ids)}; give the tokenizer that belongs to it"
        )


def _from_file(
    path: Path, base: "str | os.PathLike[str] | Loaded | None", tokenizer: str | os.PathLike[str] | None
) -> Loaded:
    tensors = open_weights(path)
    shapes = shapes_of(tensors)
    kind = kind_of(shapes, path)
    if kind == "piza_adapter":
        if base is None:
            raise PizaError(
                f"{path} holds PIZA's adapters alone; give base=, the MM-GroundingDINO checkpoint below them"
            )
        under = base if isinstance(base, Loaded) else load_source(base, tokenizer=tokenizer)
        whole = mmdet.overlay(written(under.model, mmdet.MMDET), tensors)
        found = mmdet.infer_config(shapes_of(whole), heads=under.config.detector.heads, bert_heads=1)
        config = dataclasses.replace(found, detector=under.config.detector)
        model = abstract_detector(config)
        ignored = fill(model, whole, mmdet.MMDET, where=f"{path} on its base")
        method = "piza_adapter_plus" if config.history or config.zoom_projection != "none" else "adapter_plus"
        return dataclasses.replace(under, model=model, origin=kind, method=method, ignored=ignored)
    names = {"mmdet": mmdet.MMDET, "idea": idea.IDEA}[kind]
    config = (
        plain_config(PizaConfig(detector=idea.infer_config(shapes))) if kind == "idea" else mmdet.infer_config(shapes)
    )
    found_tokenizer = optional_tokenizer(path.parent, tokenizer)
    check_tokenizer(config.detector, found_tokenizer, path)
    model = abstract_detector(config)
    ignored = fill(model, tensors, names, where=os.fspath(path))
    limit = min(MAX_TOKENS, config.detector.bert.max_positions)
    method = "none" if config.adapter == "none" else "piza_adapter_plus"
    return Loaded(model, found_tokenizer, limit, Preprocessing(), kind, method, ignored=ignored)


def kind_of(names: Iterable[str], path: Path) -> str:
    """The code base that a weight file comes from, by the names in it; PizaError if it is none that is known."""
    names = list(names)
    for kind, pattern in (
        ("mmdet", r"backbone\.(stages|patch_embed)\."),
        ("idea", r"backbone\.0\.(layers|patch_embed)\."),
        ("piza_adapter", r"(zoom_embedding|bbox_encoder)\.|.*\.adapter[12]\."),
        ("hugging_face", r"model\.backbone\.conv_encoder\."),
    ):
        # A few base norms are in an adapter file too, so one name is not enough for a whole detector.
        if sum(bool(re.match(pattern, name)) for name in names) > (0 if kind == "piza_adapter" else 40):
            if kind == "hugging_face":
                raise PizaError(
                    f"{path} is transformers' file of weights; give its folder {path.parent}, with config.json"
                )
            return kind
    raise PizaError(
        f"{path} is of no code base that is known here: it begins with {', '.join(sorted(names)[:4]) or 'nothing'}; "
        "convertible are transformers' folders, IDEA-Research's and mmdetection's .pth, and the released PIZA adapter"
    )
