"""Compile the zoom of a grounder ahead of time, for machines without model code: see ``piza_jax.exported``."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import flax
import jax
import numpy as np
from jax import export
from safetensors.numpy import save_file

import piza_jax
from piza_jax.data.pairs import PHOTO_SIDES, canvas_side
from piza_jax.errors import PizaError
from piza_jax.exported import files
from piza_jax.files import new_folder
from piza_jax.models.params import flatten_state, unflatten_state
from piza_jax.ops.platforms import for_any_platform
from piza_jax.piza.grounding import Grounder

DEFAULT_PLATFORMS = ("cpu", "cuda", "tpu")


def export_zoom(
    grounder: Grounder,
    folder: str | os.PathLike[str],
    *,
    platforms: Sequence[str] = DEFAULT_PLATFORMS,
    photo_hw: Sequence[tuple[int, int]] = (),
    single: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> files.About:
    """Write a grounder's zoom to a new folder, whole or not at all.

    Args:
        grounder: what to export, with its weights, tokenizer, zoom, batch_size and orientation.
        folder: where to.
        platforms: what to lower for, of "cpu", "cuda", "rocm" and "tpu"; none of them need be here.
        photo_hw: largest photos, height and width; a canvas for each. None gives square ones of every side of
            data.pairs.PHOTO_SIDES, so that photos of any size can be used that a Grounder takes.
        single: for one photo in each run only, which is traced and lowered sooner than for any number.
        report: is told the name of each program before it is made.

    Returns:
        What was written.

    Raises:
        PizaError: a grounder that does not zoom or is spread over devices, an unknown platform, a photo side above the
            limit, a folder that is in use or cannot be written.
    """
    if type(grounder) is not Grounder or grounder.single_pass:
        raise PizaError("only a zoom can be exported, not a single pass or slices")
    platforms = checked_platforms(platforms)
    largest = photo_hw or [(side, side) for side in PHOTO_SIDES]
    canvases = list(dict.fromkeys((canvas_side(height), canvas_side(width)) for height, width in largest))
    text, zoom, weights = _functions(grounder)
    batch, length = 1 if single else export.symbolic_shape(files.BATCH)[0], grounder.max_tokens
    tokens = {"input_ids": _like((batch, length), np.int32), "token_mask": _like((batch, length), np.bool_)}
    with new_folder(folder) as place:

        def write(name: str, function: Callable[..., Any], inputs: Mapping[str, Any], **more: Any) -> files.Program:
            report(name)
            likes = {key: _like(value.shape, value.dtype) for key, value in weights.items()}
            # For the device at hand alone its own forms of operations are enough, and sooner traced.
            here = platforms == (export.default_export_platform(),)
            with nullcontext() if here else for_any_platform():
                exported = export.export(jax.jit(function), platforms=platforms)(likes, *inputs.values())
            file = f"{name}.jax_export.gz"
            files.write_program(exported, place / file)
            outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
            shown_in, shown_out = (jax.tree.map(files.describe, part) for part in (dict(inputs), outputs))
            return files.Program(file, shown_in, shown_out, **more)

        save_file(weights, place / files.WEIGHTS)
        grounder.tokenizer.save(place / files.TOKENIZER)
        features = jax.eval_shape(text, weights, *tokens.values())
        about = files.About(
            format=files.FORMAT,
            versions={
                "piza_jax": piza_jax.__version__,
                "jax": jax.__version__,
                "flax": flax.__version__,
                "calling_convention": export.maximum_supported_calling_convention_version,
            },
            platforms=platforms,
            batch_size=1 if single else grounder.batch_size,
            max_tokens=length,
            orientation=grounder.orientation,
            zero_shot=grounder.zero_shot,
            zoom=asdict(grounder.zoom_config),
            preprocessing=grounder.preprocessing.to_dict(),
            text=write("text", text, tokens),
            zooms=tuple(
                write(
                    f"zoom_{height}x{width}",
                    zoom,
                    {
                        "photos": _like((batch, height, width, 3), np.uint8),
                        "photo_hw": _like((batch, 2), np.int32),
                        "text": features,
                    },
                    photo_hw=(height, width),
                )
                for height, width in canvases
            ),
            files={path.name: files.measured(path) for path in sorted(place.iterdir())},
        )
        files.write_about(about, place)
    return about


def checked_platforms(platforms: Sequence[str]) -> tuple[str, ...]:
    """The platforms without repetitions; PizaError if one is unknown to jax.export."""
    for name in platforms:
        if name not in files.PLATFORMS:
            hint = "; NVIDIA's GPUs are called cuda, AMD's rocm" if name == "gpu" else ""
            raise PizaError(f"unknown platform {name!r}; choose of {', '.join(files.PLATFORMS)}{hint}")
    if not platforms:
        raise PizaError(f"there is no platform to export for; choose of {', '.join(files.PLATFORMS)}")
    return tuple(dict.fromkeys(platforms))


def _functions(grounder: Grounder) -> tuple[Callable[..., Any], Callable[..., Any], dict[str, np.ndarray]]:
    """The two programs with arguments and results that need no classes of ours, and the weights by name."""
    state, encode, run, parts = grounder.programs()
    if parts > 1:
        raise PizaError(f"the grounder spreads its batches over {parts} devices; load it without devices= to export it")
    structure: list[Any] = []  # of the text features; known when text has been traced

    def text(weights: Mapping[str, Any], input_ids: Any, token_mask: Any) -> tuple[Any, ...]:
        leaves, tree = jax.tree.flatten(encode(unflatten_state(state, weights), input_ids, token_mask))
        structure[:] = [tree]
        return tuple(leaves)

    def zoom(weights: Mapping[str, Any], photos: Any, photo_hw: Any, features: tuple[Any, ...]) -> dict[str, Any]:
        found = run(unflatten_state(state, weights), photos, photo_hw, structure[0].unflatten(features))
        values = found._asdict()
        beam = values.pop("beam")
        return values if beam is None else {**values, "beam": beam._asdict()}

    weights = {name: np.ascontiguousarray(value) for name, value in jax.device_get(flatten_state(state)).items()}
    return text, zoom, weights


def _like(shape: Sequence[Any], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(shape), dtype)
