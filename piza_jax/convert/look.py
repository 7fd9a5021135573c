"""What a source of weights is, from names and shapes alone: no array is read or allocated."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flax import nnx

from piza_jax.convert import export, hugging_face, idea, load, mmdet
from piza_jax.convert.check import written_shapes
from piza_jax.convert.names import NameMap
from piza_jax.convert.tensors import IN_A_FOLDER, INDEX, open_weights
from piza_jax.data.tokenize import Tokenizer
from piza_jax.errors import PizaError
from piza_jax.models.params import check_same, flatten_state
from piza_jax.peft import select
from piza_jax.piza.abstract import abstract_detector
from piza_jax.piza.detector import PizaConfig, PizaDetector, config_from_dict
from piza_jax.piza.plain import plain_config
from piza_jax.shipped import resolve


@dataclass(frozen=True)
class Seen:
    """A source that was looked at.

    Attributes:
        origin: its format, as Loaded.origin.
        model: the abstract detector that its tensors fit, or None for the released adapter, whose base says the rest.
        method: the fine-tuning method that made it, "none" for a plain detector.
        alone: whether the files hold an adapter without its base.
        max_tokens: most tokens of an expression.
        tokenizer: of the source, or None.
        files: of the weights.
    """

    origin: str
    model: PizaDetector | None
    method: str
    alone: bool
    max_tokens: int
    tokenizer: Tokenizer | None
    files: tuple[Path, ...]


def look(path: str | os.PathLike[str], tokenizer: str | os.PathLike[str] | None = None) -> Seen:
    """Recognise a source and hold names and shapes of its tensors against the detector that they belong to.

    Args:
        path: as load.load_source takes it.
        tokenizer: folder or file of the tokenizer, for sources that ship none.

    Raises:
        PizaError: as load.load_source, but for what only the values of tensors would show.
    """
    place = resolve(path)
    if place.is_dir() and (place / load.EXPORT).is_file():
        return _export(place, tokenizer)
    return _hugging_face(place, tokenizer) if place.is_dir() else _file(place, tokenizer)


def parameters(model: PizaDetector, method: str) -> tuple[int, int]:
    """Number of parameters of a detector, abstract or not, and of those that a method trains."""
    total = select.count(nnx.state(model, nnx.Param))
    return total, 0 if method == "none" else select.count(select.split(model, method)[1])


def _export(folder: Path, tokenizer: str | os.PathLike[str] | None) -> Seen:
    about = load.read_json(folder / load.EXPORT)
    if about.get("format") != export.FORMAT:
        raise PizaError(f"{folder / load.EXPORT} has the format {about.get('format')!r}; {export.FORMAT} can be read")
    config, method, alone = config_from_dict(about["model"]), about["method"], about["kind"] == "adapter"
    found = load.optional_tokenizer(folder, tokenizer)
    load.check_tokenizer(config.detector, found, folder)
    model, file = abstract_detector(config), folder / (export.ADAPTER if alone else export.WEIGHTS)
    wanted = flatten_state(nnx.state(model, nnx.Param))
    stored = _shaped(open_weights(file).shapes)
    if alone:
        wanted = {name: value for name, value in wanted.items() if select.belongs_to(method, name)}
    check_same(wanted, stored, os.fspath(file))
    return Seen("export", model, method, alone, int(about["max_tokens"]), found, (file,))


def _hugging_face(folder: Path, tokenizer: str | os.PathLike[str] | None) -> Seen:
    if not (folder / "config.json").is_file():
        raise PizaError(
            f"{folder} is no model: it has neither {load.EXPORT} (an export of piza) nor config.json (transformers, or "
            "a work directory of piza train)"
        )
    values = load.read_json(folder / "config.json")
    detector = hugging_face.read_config(values, os.fspath(folder / "config.json"))
    found = load.optional_tokenizer(folder, tokenizer)
    load.check_tokenizer(detector, found, folder)
    model = abstract_detector(plain_config(PizaConfig(detector=detector)))
    names = hugging_face.names(detector.shared_box_head, detector.shared_class_head)
    check_shapes(model, open_weights(folder).shapes, names, os.fspath(folder))
    limit = min(int(values.get("max_text_len", load.MAX_TOKENS)), detector.bert.max_positions)
    first = next(folder / name for name in IN_A_FOLDER if (folder / name).is_file())
    files = (first,)
    if first.name.endswith(INDEX):
        files = tuple(sorted({folder / name for name in load.read_json(first)["weight_map"].values()}))
    return Seen("hugging_face", model, "none", False, limit, found, files)


def _file(path: Path, tokenizer: str | os.PathLike[str] | None) -> Seen:
    shapes = open_weights(path).shapes
    kind = load.kind_of(shapes, path)
    found = load.optional_tokenizer(path.parent, tokenizer)
    if kind == "piza_adapter":
        return Seen(kind, None, "piza_adapter_plus", True, load.MAX_TOKENS, found, (path,))
    if kind == "idea":
        config, names = plain_config(PizaConfig(detector=idea.infer_config(shapes))), idea.IDEA
    else:
        config, names = mmdet.infer_config(shapes), mmdet.MMDET
    load.check_tokenizer(config.detector, found, path)
    model = abstract_detector(config)
    check_shapes(model, shapes, names, os.fspath(path))
    method = "none" if config.adapter == "none" else "piza_adapter_plus"
    limit = min(load.MAX_TOKENS, config.detector.bert.max_positions)
    return Seen(kind, model, method, False, limit, found, (path,))


def check_shapes(model: PizaDetector, shapes: Mapping[str, tuple[int, ...]], names: NameMap, where: str) -> None:
    """PizaError that lists where foreign names and shapes are not those that the detector would be filled from."""
    wanted = written_shapes(model, names)
    known = {
        name: shape
        for name, shape in shapes.items()
        if name in wanted or not (names.original(name) in wanted or names.reason(name))
    }
    check_same(_shaped(wanted), _shaped({name: shape or (1,) for name, shape in known.items()}), where)


class _Shape:
    """Anything with a shape, as check_same wants it."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape


def _shaped(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, _Shape]:
    return {name: _Shape(tuple(shape)) for name, shape in shapes.items()}
