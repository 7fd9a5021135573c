"""What an exported zoom consists of, and whether it is whole and fits this machine.

A folder with ``exported.json`` (everything that is not an array or a program, and the sizes and hashes of the other
files), ``tokenizer.json``, ``weights.safetensors``, and one gzipped ``jax.export`` for each program: ``text``, which
encodes sentences, and ``zoom_HxW`` for each photo canvas. All take the weights as their first argument, so that they
are stored once. The number of photos is a symbolic dimension, "b"; the canvas cannot be one, since the windows and
filter taps that crops are cut with follow from it. An export for single photos has 1 in place of "b".
"""

import gzip
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
from jax import export

from piza_jax.data.decode import Orientation
from piza_jax.errors import PizaError

FORMAT = 1
ABOUT, WEIGHTS, TOKENIZER = "exported.json", "weights.safetensors", "tokenizer.json"
BATCH = "b"  # the symbolic dimension

# As jax.export calls them; of these, JAX is tested on.
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@dataclass(frozen=True)
class Program:
    """One compiled function.

    Attributes:
        file: its name in the folder.
        inputs: name -> {"dtype": ..., "shape": [...]}, in order, after the weights.
        outputs: the same of what it gives.
        photo_hw: height and width of the photo canvas; (0, 0) where there are no photos.
    """

    file: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    photo_hw: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class About:
    """The content of exported.json.

    Attributes:
        format: of the folder, FORMAT.
        versions: piza_jax, jax, flax, and calling_convention, by which jax.export tells what it can run.
        platforms: names of PLATFORMS.
        batch_size: most photos in one run, unless the user of the export says otherwise.
        max_tokens: length L of the token ids.
        orientation: "stored" or "upright", unless the user says otherwise.
        zero_shot: the detector was trained for phrases and not for sentences.
        zoom: the ZoomConfig that is compiled in.
        preprocessing: as Preprocessing.to_dict gives it, for information: mean and std are compiled in.
        text: the program that encodes sentences.
        zooms: the programs that zoom, one for each photo canvas.
        files: name -> {"bytes": ..., "sha256": ...} of every other file.
    """

    format: int
    versions: Mapping[str, Any]
    platforms: tuple[str, ...]
    batch_size: int
    max_tokens: int
    orientation: Orientation
    zero_shot: bool
    zoom: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    text: Program
    zooms: tuple[Program, ...]
    files: Mapping[str, Mapping[str, Any]]


def is_single(about: About) -> bool:
    """Whether the programs take one photo in each run, and no other number."""
    return about.text.inputs["input_ids"]["shape"][0] == 1


def describe(array: Any) -> dict[str, Any]:
    """Dtype and shape of an array or of what stands for one, ready for JSON."""
    return {"dtype": str(array.dtype), "shape": [int(n) if isinstance(n, int) else str(n) for n in array.shape]}


def write_program(exported: export.Exported, path: Path) -> None:
    """Store a program; the same one always as the same bytes."""
    path.write_bytes(gzip.compress(bytes(exported.serialize()), mtime=0))


def lowered_program(path: Path, versions: Mapping[str, Any], *arguments: Any) -> jax.stages.Lowered:
    """Read a program, for arguments of these shapes. PizaError if this version of jax cannot."""
    try:
        program = export.deserialize(bytearray(gzip.decompress(path.read_bytes())))
        return jax.jit(program.call).lower(*arguments)
    except Exception as error:  # jax says so in many ways
        raise PizaError(
            f"jax {jax.__version__} cannot use {path}, which jax {versions.get('jax')} wrote: {error}; install that "
            "version, or export again with this one"
        ) from error


def write_about(about: About, folder: Path) -> None:
    """Write exported.json."""
    (folder / ABOUT).write_text(json.dumps(asdict(about), indent=1) + "\n", encoding="utf-8")


def measured(path: Path) -> dict[str, Any]:
    """Size and hash of a file, as About.files has them."""
    with path.open("rb") as file:
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def read_about(folder: Path) -> About:
    """Read exported.json.

    Raises:
        PizaError: there is none, it is damaged, or of a newer piza_jax.
    """
    path = folder / ABOUT
    if not path.is_file():
        raise PizaError(f"there is no exported zoom at {folder} (no {ABOUT}); piza export writes one")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] > FORMAT:
            raise PizaError(
                f"{folder} has the format {values['format']} of piza_jax {values['versions']['piza_jax']}; this "
                f"version reads up to {FORMAT}: install the newer piza_jax, or export again with this one"
            )
        return _parsed(values)
    except OSError as error:
        raise PizaError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise PizaError(f"{path} is damaged ({type(error).__name__}: {error}); copy or export it again") from error


def _parsed(values: Mapping[str, Any]) -> About:
    """The dataclasses of what json read; KeyError, TypeError or ValueError if it is anything else."""
    text, *zooms = (
        Program(**{**one, "photo_hw": (int(one["photo_hw"][0]), int(one["photo_hw"][1]))})
        for one in (values["text"], *values["zooms"])
    )
    versions = {**values["versions"], "calling_convention": int(values["versions"]["calling_convention"])}
    hashes = {name: {"bytes": int(one["bytes"]), "sha256": one["sha256"]} for name, one in values["files"].items()}
    if missing := sorted({WEIGHTS, TOKENIZER, text.file, *(one.file for one in zooms)} - set(hashes)):
        raise ValueError(f"no hash of {missing[0]}")
    if strange := [name for name in hashes if Path(name).name != name]:
        raise ValueError(f"{strange[0]} is not in the folder")
    changes = {"text": text, "zooms": tuple(zooms), "versions": versions, "files": hashes}
    return About(**{**values, **changes, "platforms": tuple(values["platforms"])})


def check_machine(about: About, folder: Path) -> None:
    """PizaError if the programs are not for this platform or not for this version of jax."""
    here = export.default_export_platform()
    if here not in about.platforms:
        raise PizaError(
            f"{folder} was exported for {', '.join(about.platforms)} and jax runs on {here} here; export again with "
            f"--platforms={','.join((*about.platforms, here))}"
        )
    version = about.versions["calling_convention"]
    newest, oldest = (
        export.maximum_supported_calling_convention_version,
        export.minimum_supported_calling_convention_version,
    )
    if version > newest:
        raise PizaError(
            f"{folder} was exported by jax {about.versions['jax']} with calling convention {version}; jax "
            f"{jax.__version__} knows up to {newest}: install the newer jax"
        )
    if version < oldest:
        raise PizaError(
            f"{folder} was exported by jax {about.versions['jax']} with calling convention {version}; jax "
            f"{jax.__version__} knows {oldest} and later: export again"
        )


def check_files(about: About, folder: Path) -> None:
    """PizaError if a file is missing, cut short or changed."""
    for name, wanted in about.files.items():
        path = folder / name
        if not path.is_file():
            raise PizaError(f"{path} is missing; copy the whole folder again")
        try:
            found = measured(path)
        except OSError as error:
            raise PizaError(f"cannot read {path}: {error.strerror or error}") from error
        if found["bytes"] != wanted["bytes"]:
            raise PizaError(f"{path} has {found['bytes']} bytes instead of {wanted['bytes']}; copy it again")
        if found["sha256"] != wanted["sha256"]:
            raise PizaError(f"{path} is damaged: its sha256 is not the one in {ABOUT}; copy it again")
