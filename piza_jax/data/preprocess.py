"""The view of a photo that a released detector was trained on, as its preprocessor_config.json describes it.

The rule and the pixels are those of transformers' image processor on Pillow; the torchvision one differs from it by
about a level.
"""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from piza_jax.errors import PizaError

FILE = "preprocessor_config.json"
_RESCALE = 1 / 255
_LARGE = 2**26  # bytes of canvases that threads fill
_STEPS = ("do_resize", "do_rescale", "do_normalize", "do_pad")


@dataclass(frozen=True)
class Preprocessing:
    """How photos become the detector's input.

    Attributes:
        shortest_edge: wanted short side of the resized photo, pixels.
        longest_edge: most that the long side may then have, pixels; it wins over shortest_edge.
        mean: of red, green and blue, levels in 0..1.
        std: of red, green and blue, levels in 0..1.
    """

    shortest_edge: int = 800
    longest_edge: int = 1333
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if not 1 <= self.shortest_edge <= self.longest_edge:
            raise PizaError(
                f"preprocessing: shortest_edge is {self.shortest_edge} and longest_edge {self.longest_edge}; "
                "they must be at least 1, the shortest not above the longest"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise PizaError(
                f"preprocessing: mean is {self.mean} and std {self.std}; give three numbers each, std above 0"
            )

    @classmethod
    def for_canvas(cls, canvas_hw: tuple[int, int]) -> "Preprocessing":
        """The default, with resized photos that fit a canvas of this height and width or its transpose."""
        return cls(shortest_edge=min(canvas_hw), longest_edge=max(canvas_hw))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "Preprocessing":
        """Read a preprocessor_config.json, or a processor_config.json, which nests the same under "image_processor".

        Raises:
            PizaError: an absent or broken file, or a setting that this class cannot reproduce, by its key.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise PizaError(f"cannot read {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise PizaError(f"{path} is not JSON: {error}") from error
        if isinstance(values, dict) and "image_processor" in values:
            values = values["image_processor"]
        if not isinstance(values, dict):
            raise PizaError(f"{path} does not describe an image processor; give the {FILE} of the checkpoint")
        return cls.from_dict(values, os.fspath(path))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> "Preprocessing":
        """From the content of a preprocessor_config.json; absent keys have transformers' defaults.

        Args:
            values: the content.
            where: its file, for errors.

        Raises:
            PizaError: a setting that this class cannot reproduce, by its key.
        """
        _check(values, where)
        shortest, longest = _edges(values, where)
        mean, std = (_three(values, key, where) for key in ("image_mean", "image_std"))
        try:
            return cls(shortest, longest, mean or cls.mean, std or cls.std)
        except PizaError as error:
            raise PizaError(f"{where}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Content of a preprocessor_config.json that makes transformers do the same."""
        return {
            "do_convert_annotations": True,
            **dict.fromkeys(_STEPS, True),
            "format": "coco_detection",
            "image_mean": list(self.mean),
            "image_processor_type": "GroundingDinoImageProcessor",
            "image_std": list(self.std),
            "resample": int(Image.Resampling.BILINEAR),
            "rescale_factor": _RESCALE,
            "size": {"shortest_edge": self.shortest_edge, "longest_edge": self.longest_edge},
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write preprocessor_config.json into a folder, whole or not at all; PizaError if it cannot be written."""
        path = Path(folder) / FILE
        temporary = path.with_name(f".{FILE}.{os.getpid()}.tmp")
        try:
            temporary.write_text(json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n", encoding="utf-8")
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise PizaError(f"cannot write {path}: {error.strerror or error}") from error

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that a photo of this height and width is resized to.

        Raises:
            PizaError: the photo is so thin that its short side would vanish.
        """
        low, high = float(min(height, width)), float(max(height, width))
        short, exact = self.shortest_edge, float(self.shortest_edge)
        if high / low * short > self.longest_edge:
            exact = self.longest_edge * low / high
            short = round(exact)
        if short == low:  # left alone, even if the long side is then some pixels too long
            return height, width
        # Multiplied before it is divided, as the source does, or some sizes come out one pixel smaller.
        size = (int(exact * height / width), short) if width < height else (short, int(exact * width / height))
        if min(size) < 1:
            raise PizaError(
                f"a photo of {width} x {height} is too thin for longest_edge={self.longest_edge}: nothing of its short "
                "side would be left; cut it"
            )
        return size

    def view(self, photo: np.ndarray | Image.Image) -> tuple[np.ndarray, tuple[int, int]]:
        """Resize a photo.

        Args:
            photo: uint8 [H, W, 3] RGB, or an RGB Pillow image.

        Returns:
            Pixels uint8 [h, w, 3], and (h, w) = size_of(H, W).

        Raises:
            PizaError: a photo that is too thin.
        """
        image = photo if isinstance(photo, Image.Image) else Image.fromarray(photo)
        height, width = self.size_of(image.height, image.width)
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)), (height, width)

    def batch(self, photos: Sequence[np.ndarray | Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        """Resize photos and pad them at the bottom and right to the largest, as the source does.

        Args:
            photos: at least one; see view.

        Returns:
            canvas uint8 [B, H, W, 3], zero outside the content; valid_hw int32 [B, 2], height and width of the content.
        """
        views = [self.view(photo)[0] for photo in photos]
        return on_canvas(views, (max(view.shape[0] for view in views), max(view.shape[1] for view in views)))


def on_canvas(views: Sequence[np.ndarray], canvas_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Views uint8 [h, w, 3] in the top left corner of canvases uint8 [B, H, W, 3], and their valid_hw int32 [B, 2]."""
    canvas = np.zeros((len(views), *canvas_hw, 3), np.uint8)

    def put(row: int) -> None:
        height, width = views[row].shape[:2]
        canvas[row, :height, :width] = views[row]

    if canvas.nbytes < _LARGE:
        for row in range(len(views)):
            put(row)
    else:
        # A device waits for it, and the memory is fresh: most of the time goes into the first touch of its pages.
        with ThreadPoolExecutor() as pool:
            list(pool.map(put, range(len(views))))
    return canvas, np.array([view.shape[:2] for view in views], np.int32)


def _check(values: Mapping[str, Any], where: str) -> None:
    kind = values.get("image_processor_type") or values.get("feature_extractor_type") or "GroundingDino"
    if not str(kind).startswith("GroundingDino"):
        raise PizaError(f"{where}: image_processor_type is {kind!r}; only GroundingDINO's is supported")
    wanted: dict[str, Any] = {"resample": int(Image.Resampling.BILINEAR), **dict.fromkeys(_STEPS, True)}
    wanted |= {"pad_and_return_pixel_mask": True, "pad_size": None}
    for key, value in wanted.items():
        given = values.get(key, value)
        if given != value and not (given is None and key not in _STEPS):
            raise PizaError(f"{where}: {key} is {given!r}; only {value!r} is supported")
    factor = values.get("rescale_factor", _RESCALE)
    if not isinstance(factor, float) or abs(factor - _RESCALE) > 1e-9:
        raise PizaError(f"{where}: rescale_factor is {factor!r}; only 1/255 is supported")


def _edges(values: Mapping[str, Any], where: str) -> tuple[int, int]:
    size = values.get("size")
    if size is None:
        size = {"shortest_edge": 800, "longest_edge": 1333}
    elif isinstance(size, int):  # the form of old files
        size = {"shortest_edge": size, "longest_edge": values.get("max_size", 1333)}
    shortest, longest = (size.get(f"{key}_edge") if isinstance(size, dict) else None for key in ("shortest", "longest"))
    if not isinstance(shortest, int) or not isinstance(longest, int) or len(size) != 2:
        raise PizaError(f"{where}: size is {size!r}; only {{'shortest_edge': ..., 'longest_edge': ...}} is supported")
    return shortest, longest


def _three(values: Mapping[str, Any], key: str, where: str) -> tuple[float, float, float] | None:
    given = values.get(key)
    if given is None:
        return None
    numbers = [given] * 3 if isinstance(given, (int, float)) else given
    try:
        red, green, blue = (float(number) for number in numbers)
    except (TypeError, ValueError) as error:
        raise PizaError(f"{where}: {key} is {given!r}; it must be three numbers in 0..1, RGB") from error
    return red, green, blue
