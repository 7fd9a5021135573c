"""Load a trained or converted model and find things: ``load(source).ground(photos, expressions)``."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from piza_jax.convert.load import Loaded, load_source
from piza_jax.data.decode import Orientation
from piza_jax.data.preprocess import Preprocessing
from piza_jax.data.tokenize import Tokenizer
from piza_jax.errors import PizaError
from piza_jax.evaluation.baselines import SliceGrounder
from piza_jax.evaluation.methods import Method, method_of
from piza_jax.piza.grounding import Alternative, Grounder, Grounding, Photo, Step
from piza_jax.piza.phrases import PhraseDetections
from piza_jax.piza.zoom import ZoomConfig, changed, zoom_config_of
from piza_jax.training.sharding import Spread, make_mesh

__all__ = ["Alternative", "Grounder", "Grounding", "Photo", "PhraseDetections", "Step", "load", "open_model"]

Source = str | os.PathLike[str]


def load(
    path: Source | Loaded,
    *,
    base: Source | None = None,
    tokenizer: Source | None = None,
    training_free: bool | None = None,
    single_pass: bool = False,
    method: str | None = None,
    canvas_multiple: int = 1,
    batch_size: int = 8,
    photo_hw: tuple[int, int] = (1, 1),
    orientation: Orientation = "stored",
    devices: Sequence[Any] | None = None,
    **zoom_options: Any,
) -> Grounder:
    """Load a model of any kind; the format is recognised.

    Args:
        path: a folder that ``piza train --workdir`` wrote (its last checkpoint is taken), an export of ``piza
            convert``, a transformers folder or hub name, or a .pth of a release; see convert.load.load_source. Or what
            open_model gave, to look in several ways with one model.
        base: for an adapter alone: the model that it is laid over.
        tokenizer: folder or file of the tokenizer, for sources that ship none.
        training_free: zoom by rule instead of the model's PIZA weights; by default only where it has none. A model
            that was trained to look once takes as many steps as others, where this or that method is given.
        single_pass: ``ground`` looks once at the whole photo instead of zooming.
        method: the word of any way to look, such as "sliding:1024:0.2", see evaluation.methods.method_of.
        canvas_multiple: above 1, fewer sizes are compiled for single passes, see Grounder.
        batch_size: most photos in one run of the device.
        photo_hw: smallest photo canvas, see Grounder.
        orientation: "stored", or "upright" to turn photos as their EXIF tag says.
        devices: share each batch among these, such as ``jax.local_devices()``; by default one device does it all.
        zoom_options: fields of ZoomConfig, such as max_steps or beam, in place of those of the training.

    Raises:
        PizaError: nothing that can be loaded there; an option that does not exist or has no sense.
    """
    ways = {"single_pass": single_pass, "training_free": training_free, "method": method}
    if len(chosen := [name for name, value in ways.items() if value]) > 1:
        raise PizaError(f"{' and '.join(chosen)} are {len(chosen)} ways to look; choose one")
    way = method_of(method) if method else None
    loaded = path if isinstance(path, Loaded) else open_model(path, base=base, tokenizer=tokenizer)
    if loaded.tokenizer is None:
        source = f"the {loaded.origin} model" if path is loaded else path
        raise PizaError(f"{source} ships no tokenizer; give tokenizer=FOLDER with tokenizer.json or vocab.txt")
    if way is None:
        free = training_free or (training_free is None and not loaded.config.history)
        way = Method("", "single" if single_pass else "training_free" if free else "piza")
    if (training_free or method) and way.kind == "training_free" and loaded.zoom.get("max_steps") == 1:
        zoom_options.setdefault("max_steps", ZoomConfig.max_steps)  # one look was its training's, and is no zoom
    spread = Spread(make_mesh(devices=list(devices))) if devices and len(devices) > 1 else None
    options = {"canvas_multiple": canvas_multiple, "batch_size": batch_size, "photo_hw": photo_hw}
    return _with_method(
        loaded, loaded.tokenizer, way, zoom_options, orientation=orientation, placement=spread, **options
    )


def _with_method(
    loaded: Loaded, tokenizer: Tokenizer, method: Method, zoom_options: Mapping[str, Any], **options: Any
) -> Grounder:
    mode = "piza" if method.kind == "piza" else "training_free"
    config = changed(ZoomConfig(**loaded.zoom), mode=mode, **zoom_options)
    parts = loaded.model, tokenizer
    options |= {"preprocessing": loaded.preprocessing, "zero_shot": loaded.method == "none"}
    if method.slicing is not None:
        return SliceGrounder(*parts, method.slicing, config, loaded.max_tokens, **options)
    if method.short_side is not None:
        options["preprocessing"] = _resized(loaded.preprocessing, config.canvas_hw, method.short_side)
    return Grounder(*parts, config, loaded.max_tokens, single_pass=method.kind == "single", **options)


def _resized(view: Preprocessing | None, canvas_hw: tuple[int, int], short_side: int) -> Preprocessing:
    """The detector's own view at another resolution: both limits by the same factor."""
    view = view or Preprocessing.for_canvas(canvas_hw)
    long_side = round(short_side * view.longest_edge / view.shortest_edge)
    return dataclasses.replace(view, shortest_edge=short_side, longest_edge=long_side)


def open_model(path: Source, *, base: Source | None = None, tokenizer: Source | None = None) -> Loaded:
    """The weights of any source, and what belongs to them; arguments and errors as ``load``."""
    from piza_jax.training import checkpoint

    below = open_model(base, tokenizer=tokenizer) if base is not None else None
    if not checkpoint.is_workdir(path):
        return load_source(path, base=below, tokenizer=tokenizer)
    if below is not None:
        raise PizaError(f"{path} is the folder of a whole training run; it takes no base")
    model, config = checkpoint.load_model(path)
    return Loaded(
        model,
        Tokenizer.from_file(Path(path) / "tokenizer.json"),
        int(config["data"]["max_tokens"]),
        origin="workdir",
        method=str(config["peft"]),
        zoom=dataclasses.asdict(zoom_config_of(config)),
    )
