"""Zooming with the programs of an export: photos and sentences in, groundings out, as ``piza.grounding.Grounder``."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from piza_jax.data.decode import Orientation
from piza_jax.data.pairs import batches, filled_rows
from piza_jax.data.photos import Photo, is_single, read_photo
from piza_jax.data.preprocess import on_canvas
from piza_jax.data.tokenize import Tokenizer
from piza_jax.errors import PizaError
from piza_jax.exported import files
from piza_jax.results import Beam, Grounding, ZoomResult, of_zoom


def load_exported(
    path: str | os.PathLike[str],
    *,
    batch_size: int | None = None,
    orientation: Orientation | None = None,
    compiler_options: Mapping[str, Any] | None = None,
) -> "ExportedZoom":
    """Load what ``piza export`` wrote.

    Args:
        path: its folder.
        batch_size: most photos in one run of the device, in place of the export's own number.
        orientation: "stored", or "upright" to turn photos as their EXIF tag says; in place of the export's own.
        compiler_options: XLA's, by name.

    Raises:
        PizaError: there is none; a file of it is missing, cut short or changed; it was exported for another platform,
            or by a version of piza_jax or jax that this one cannot read; a batch_size below 1, or above 1 where it was
            exported for single photos.
    """
    folder = Path(path)
    about = files.read_about(folder)
    files.check_machine(about, folder)
    files.check_files(about, folder)
    sizes = batch_size or about.batch_size, orientation or about.orientation
    return ExportedZoom(folder, about, *sizes, dict(compiler_options or {}))


class ExportedZoom:
    """Finds what sentences name in photos, as a Grounder does, with programs that were compiled ahead of time.

    A batch has the smallest of the export's photo canvases that all its photos fit on. For each canvas and each number
    of photos 1, 2, 4 ... batch_size, XLA compiles once, at the first use.
    """

    def __init__(
        self,
        folder: Path,
        about: files.About,
        batch_size: int,
        orientation: Orientation,
        compiler_options: dict[str, Any],
    ):
        """Read weights and tokenizer; the files have been checked, see load_exported."""
        if batch_size < 1:
            raise PizaError(f"batch_size is {batch_size}; it must be at least 1")
        if batch_size > 1 and files.is_single(about):
            raise PizaError(f"batch_size is {batch_size}, but {folder} was exported for one photo in each run")
        self.folder, self.about, self.batch_size, self.orientation = folder, about, batch_size, orientation
        self.tokenizer = Tokenizer.from_file(folder / files.TOKENIZER)
        try:
            self._weights = jax.device_put(load_file(folder / files.WEIGHTS))
        except (OSError, SafetensorError) as error:
            raise PizaError(f"cannot read {folder / files.WEIGHTS}: {error}") from error
        self._zooms = sorted(about.zooms, key=lambda one: one.photo_hw[0] * one.photo_hw[1])
        self._compiled: dict[tuple[str, int], Any] = {}
        self._compiler_options = compiler_options
        self._warn = about.zero_shot

    # A path is a Photo and a str, which is why mypy sees an overlap.
    @overload
    def __call__(self, images: Photo, expressions: str) -> Grounding: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, images: Sequence[Photo], expressions: str | Sequence[str]) -> list[Grounding]: ...

    @overload
    def __call__(self, images: Photo | Sequence[Photo], expressions: Sequence[str]) -> list[Grounding]: ...

    def __call__(self, images: Any, expressions: Any) -> Grounding | list[Grounding]:
        """Find what each expression names.

        Args:
            images: a path, Pillow image or uint8 array [H, W, 3], or a sequence of them (or an array [N, H, W, 3]).
            expressions: a sentence, or a sequence of them: one for each image, or many for one image; one sentence
                serves all images.

        Returns:
            One Grounding where both arguments are single, otherwise a list of them. Boxes are xyxy photo pixels.

        Raises:
            PizaError: an image that is missing, damaged, of another kind or larger than every canvas; an empty or too
                long expression; numbers of images and expressions that do not match; a score that is not finite.
        """
        many = not (is_single(images) and isinstance(expressions, str))
        texts = [expressions] if isinstance(expressions, str) else list(expressions)
        if self._warn:
            self._warn = False
            warnings.warn(
                "this detector was not trained to ground sentences: its best box may be of another noun than the one "
                "meant",
                stacklevel=2,
            )
        found: list[Grounding] = []
        for batch in batches(images, texts, self.read, self._encode, self.batch_size):
            result = self.run(batch.photos, batch.input_ids, batch.token_mask)
            found += [of_zoom(result, row, text) for row, text in enumerate(batch.texts)]
        return found if many else found[0]

    def read(self, image: Photo) -> np.ndarray:
        """Pixels of one image, uint8 [H, W, 3] RGB, in which its boxes count. PizaError if it cannot be read."""
        return read_photo(image, self.orientation)

    def run(self, photos: Sequence[np.ndarray], input_ids: np.ndarray, token_mask: np.ndarray) -> ZoomResult:
        """Zoom in one batch.

        Args:
            photos: B photos uint8 [H, W, 3], 1 to batch_size.
            input_ids: int32 [B, L], L = about.max_tokens.
            token_mask: bool [B, L], True = token.

        Returns:
            The zooms, as NumPy arrays.

        Raises:
            PizaError: another number of photos, arrays of another shape or dtype, a photo larger than every canvas, or
                a score that is not finite.
        """
        count = len(photos)
        if not 1 <= count <= self.batch_size:
            raise PizaError(f"{count} photos in one run; this zoom takes 1 to {self.batch_size}, see batch_size")
        for name, array, dtype in (("input_ids", input_ids, np.int32), ("token_mask", token_mask, np.bool_)):
            if array.shape != (count, self.about.max_tokens) or array.dtype != dtype:
                raise PizaError(
                    f"{name} is {array.dtype} {list(array.shape)}; for {count} photos it must be "
                    f"{np.dtype(dtype)} [{count}, {self.about.max_tokens}]"
                )
        program = self._zoom_for(photos)
        rows = filled_rows(count, self.batch_size)
        canvas, photo_hw = on_canvas([photos[row] for row in rows], program.photo_hw)
        text = self._call(self.about.text, input_ids[rows], token_mask[rows])
        arrays = jax.device_get(self._call(program, canvas, photo_hw, text))
        arrays = jax.tree.map(lambda array: array[:count], arrays)
        beam = arrays.pop("beam", None)
        result = ZoomResult(**arrays, beam=Beam(**beam) if beam else None)
        if not (np.isfinite(result.score).all() and np.isfinite(result.box).all()):
            raise PizaError("the model gave a score that is not finite; its weights are damaged or it diverged")
        return result

    def _encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        return self.tokenizer.encode(text, self.about.max_tokens)

    def _zoom_for(self, photos: Sequence[np.ndarray]) -> files.Program:
        """The program with the smallest canvas that holds all the photos."""
        height, width = (max(photo.shape[axis] for photo in photos) for axis in (0, 1))
        for program in self._zooms:
            if height <= program.photo_hw[0] and width <= program.photo_hw[1]:
                return program
        canvases = ", ".join("{} x {}".format(*one.photo_hw) for one in self._zooms)
        raise PizaError(
            f"photos of up to {height} x {width} pixels (height x width) fit on no canvas of this export ({canvases}); "
            f"export again with --photo_hw={height},{width}, or shrink the photos"
        )

    def _call(self, program: files.Program, *inputs: Any) -> Any:
        """Run a program on its inputs, with the number of photos as their leading axis."""
        key = program.file, len(inputs[0])
        if key not in self._compiled:
            path = self.folder / program.file
            lowered = files.lowered_program(path, self.about.versions, self._weights, *inputs)
            self._compiled[key] = lowered.compile(self._compiler_options)
        return self._compiled[key](self._weights, *inputs)
