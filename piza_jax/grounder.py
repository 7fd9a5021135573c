"""Load a trained model and find things: ``load(folder).ground(photos, expressions)``."""

import os
from pathlib import Path
from typing import Any

from piza_jax.data.decode import Orientation
from piza_jax.data.tokenize import Tokenizer
from piza_jax.errors import PizaError
from piza_jax.piza.grounding import Grounder, Grounding, Photo, Step
from piza_jax.piza.phrases import PhraseDetections
from piza_jax.piza.zoom import zoom_config_of

__all__ = ["Grounder", "Grounding", "Photo", "PhraseDetections", "Step", "load"]


def load(
    path: str | os.PathLike[str],
    *,
    training_free: bool | None = None,
    single_pass: bool = False,
    canvas_multiple: int = 1,
    batch_size: int = 8,
    photo_hw: tuple[int, int] = (1, 1),
    orientation: Orientation = "stored",
    **zoom_options: Any,
) -> Grounder:
    """Load the model of a training folder with its last checkpoint.

    Args:
        path: folder that ``piza train --workdir`` wrote.
        training_free: zoom by rule instead of the model's PIZA weights; by default only where it has none.
        single_pass: ``ground`` looks once at the whole photo instead of zooming.
        canvas_multiple: above 1, fewer sizes are compiled for single passes, see Grounder.
        batch_size: most photos in one run of the device.
        photo_hw: smallest photo canvas, see Grounder.
        orientation: "stored", or "upright" to turn photos as their EXIF tag says.
        zoom_options: fields of ZoomConfig, such as max_steps, in place of those of the training.

    Raises:
        PizaError: no folder, configuration, tokenizer or checkpoint there; a checkpoint of another configuration; an
            option that does not exist or has no sense.
    """
    from piza_jax.training.checkpoint import load_model

    if single_pass and training_free:
        raise PizaError("single_pass and training_free are two ways to look; choose one")
    model, config = load_model(path)
    tokenizer = Tokenizer.from_file(Path(path) / "tokenizer.json")
    has_history = bool(config["model"].get("history", True))
    mode = "training_free" if training_free or (training_free is None and not has_history) else "piza"
    zoom_config = zoom_config_of(config, mode=mode, **zoom_options)
    return Grounder(
        model,
        tokenizer,
        zoom_config,
        int(config["data"]["max_tokens"]),
        batch_size=batch_size,
        photo_hw=photo_hw,
        orientation=orientation,
        single_pass=single_pass,
        canvas_multiple=canvas_multiple,
    )
