"""Load a trained or converted model and find things: ``load(source).ground(photos, expressions)``."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from piza_jax.convert.load import Loaded, load_source
from piza_jax.data.decode import Orientation
from piza_jax.data.tokenize import Tokenizer
from piza_jax.errors import PizaError
from piza_jax.piza.grounding import Alternative, Grounder, Grounding, Photo, Step
from piza_jax.piza.phrases import PhraseDetections
from piza_jax.piza.zoom import ZoomConfig, changed, zoom_config_of

__all__ = ["Alternative", "Grounder", "Grounding", "Photo", "PhraseDetections", "Step", "load", "open_model"]

Source = str | os.PathLike[str]


def load(
    path: Source,
    *,
    base: Source | None = None,
    tokenizer: Source | None = None,
    training_free: bool | None = None,
    single_pass: bool = False,
    canvas_multiple: int = 1,
    batch_size: int = 8,
    photo_hw: tuple[int, int] = (1, 1),
    orientation: Orientation = "stored",
    **zoom_options: Any,
) -> Grounder:
    """Load a model of any kind; the format is recognised.

    Args:
        path: a folder that ``piza train --workdir`` wrote (its last checkpoint is taken), an export of ``piza
            convert``, a transformers folder or hub name, or a .pth of a release; see convert.load.load_source.
        base: for an adapter alone: the model that it is laid over.
        tokenizer: folder or file of the tokenizer, for sources that ship none.
        training_free: zoom by rule instead of the model's PIZA weights; by default only where it has none.
        single_pass: ``ground`` looks once at the whole photo instead of zooming.
        canvas_multiple: above 1, fewer sizes are compiled for single passes, see Grounder.
        batch_size: most photos in one run of the device.
        photo_hw: smallest photo canvas, see Grounder.
        orientation: "stored", or "upright" to turn photos as their EXIF tag says.
        zoom_options: fields of ZoomConfig, such as max_steps or beam, in place of those of the training.

    Raises:
        PizaError: nothing that can be loaded there; an option that does not exist or has no sense.
    """
    if single_pass and training_free:
        raise PizaError("single_pass and training_free are two ways to look; choose one")
    loaded = open_model(path, base=base, tokenizer=tokenizer)
    if loaded.tokenizer is None:
        raise PizaError(f"{path} ships no tokenizer; give tokenizer=FOLDER with tokenizer.json or vocab.txt")
    mode = "training_free" if training_free or (training_free is None and not loaded.config.history) else "piza"
    return Grounder(
        loaded.model,
        loaded.tokenizer,
        changed(ZoomConfig(**loaded.zoom), mode=mode, **zoom_options),
        loaded.max_tokens,
        batch_size=batch_size,
        photo_hw=photo_hw,
        orientation=orientation,
        preprocessing=loaded.preprocessing,
        single_pass=single_pass,
        zero_shot=loaded.method == "none",
        canvas_multiple=canvas_multiple,
    )


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
