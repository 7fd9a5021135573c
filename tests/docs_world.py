"""A small world in which the commands of the documentation can run: the files that they name, and a tiny detector.

``SIZES`` and ``adapted`` say what a command is given beyond its own words, or in their place.
"""

import contextlib
import csv
import dataclasses
import functools
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image

from piza_jax import cli, compile_cache
from piza_jax.data.scenes import write_scenes
from piza_jax.grounder import open_model
from piza_jax.models.config import DetectorConfig
from tests import refcoco_files, torch_models
from tests.conftest import HASTY
from tests.test_task import ROOT

SENTENCE = "The red car in the left part of the street."
TRAINING = [
    *("--config.train.num_steps=1", "--config.train.batch_size=8", "--config.evaluation.every=0"),
    *("--config.data.num_workers=0", "--config.data.canvas_hw=(64,64)", "--config.data.max_tokens=160"),
]
# Options that keep a command small, by its first words.
SIZES = {
    "piza evaluate --checkpoint": ["--num_records=1", "--max_steps=2", "--num_strips=1"],
    "piza evaluate --checkpoint=OUT --data_dir=DATA --split=val --curve": [
        *("--num_records=1", "--max_steps=1", "--curve_canvases=96"),
        *("--method=piza", "--method=single", "--beam=2"),  # each way is a program; test_curve.py has them all
    ],
    "piza tune": ["--num_records=2", "--beams=1", "--stops", "0.5", "--backtracks", "0"],
    # A program for each size of photos; test_exported.py has them all.
    "piza export": ["--platforms=cpu", "--max_steps=1", "--photo_hw=240,320"],
    "piza export TARGET --checkpoint=OUT --batch": ["--platforms=cpu", "--max_steps=1"],
    "piza ground": ["--max_steps=2"],
    "piza data --data_dir": ["--num=2"],
    "python -m tfds_sorec.build_mini": ["--scale=0.0001", "--workers=1"],
    "python -m benchmarks.mini_base": ["--scenes=2", "--records=2"],
    "python -m benchmarks.mini_table": ["--records=1"],
    "python -m benchmarks.decode": ["--small"],
    "python -m benchmarks.start_up": ["--runs=1"],
}
FOUND_ELSEWHERE = {  # a word of a command -> what it is here
    "SENTENCE": SENTENCE,
    "--annotations=FILE": "--annotations=FILE.csv",
    "--annotations=testA.json": "--annotations=FOLDER/testA.json",
    "--images=SODA-D/rawData/Images": "--images=DIR",
    "OUT": "WORKDIR",
    "--checkpoint=OUT": "--checkpoint=WORKDIR",
}


def begins(line: str, table: dict[str, Any]) -> list[Any]:
    """The values of a table whose keys the line begins with, the longest key first."""
    return [table[key] for key in sorted(table, key=len, reverse=True) if line.startswith(key)]


@contextlib.contextmanager
def small_world(folder: Path) -> Iterator[Path]:
    """The working directory, with everything in it that the commands name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("configs").symlink_to(ROOT / "configs")
        patch.setenv(compile_cache.VARIABLE, str(folder / "compiled"))
        compile_cache.enable()  # most commands compile what one before has
        _write_records()
        _build_data()
        torch_models.hub_folder(folder / "SOURCE", bert_layers=1)
        shutil.copytree("SOURCE", "IDEA-Research/grounding-dino-tiny")  # as if it had been fetched to here
        assert execute(["piza", "convert", "SOURCE", "BASE"]) == 0
        train = ["piza", "train", "--config=configs/piza_sorec.py:smoke", "--config.pretrained=BASE"]
        train += ["--config.data.kind=tfds", "--config.data.data_dir=DATA", *TRAINING, *sizes_of_base()]
        assert execute([*train, "--workdir=WORKDIR"]) == 0
        shutil.copytree("WORKDIR", "OTHER")
        assert execute(["piza", "convert", "WORKDIR", "ADAPTER", "--to=adapter", "--base=BASE"]) == 0
        yield folder
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


def _write_records() -> None:
    """SOREC's files and RefCOCO's, two photos, own data as a table, and somebody's answers."""
    write_scenes("FOLDER", 10, size=(320, 240))
    shutil.copy("FOLDER/trainS.json", "FOLDER/trainL.json")
    refcoco_files.draw_photos(Path("FOLDER/train2014"), 2)
    refcoco_files.write_mdetr(Path("FOLDER"), "refcoco", {"train": [0], "val": [1], "testA": [1], "testB": [1]})
    shutil.copytree("FOLDER/SODA-D/rawData/Images", "DIR")
    shutil.copy(sorted(Path("DIR").iterdir())[0], "PHOTO.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: to be turned by a quarter
    Image.open("PHOTO.jpg").save("PHONE.jpg", exif=turned)
    shutil.copy("FOLDER/val.json", "val.json")
    shutil.copy("FOLDER/trainS.json", "FILE.json")
    records = json.loads(Path("FILE.json").read_text()) + json.loads(Path("val.json").read_text())
    with open("FILE.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "expression", "x0", "y0", "x1", "y1"))
        for one in records:
            x, y, w, h = one["bbox"]
            rows.writerow((one["image"], one["ref"], x, y, x + w, y + h))
    answers = [{"id": one["id"], "box": [0, 0, 10, 10]} for one in json.loads(Path("val.json").read_text())]
    Path("found.jsonl").write_text("".join(json.dumps(one) + "\n" for one in answers))


def _build_data() -> None:
    """SOREC, own data under two names, and SOREC-mini; and one of its streets."""
    own = "build_own", "--annotations=FILE.csv", "--images=DIR"
    mini = "build_mini", "--variants", "small", *SIZES["python -m tfds_sorec.build_mini"]
    for name, *options in (("build", "--manual_dir=FOLDER"), own, (*own, "--name=birds"), mini):
        assert execute(["python", "-m", f"tfds_sorec.{name}", *options, "--data_dir=DATA"]) == 0
    assert execute(["piza", "data", "--draw=street.jpg", "--scene=3"]) == 0


def execute(words: list[str]) -> int:
    """Run a command, its exit status: of piza and of the builders in this process, any other in one of its own."""
    if words[0] == "piza":
        return cli.main(words[1:]) or 0
    if words[2].startswith("tfds_sorec."):
        return importlib.import_module(words[2]).main(words[3:])
    with start(words) as process:
        output = process.communicate()[0]
    assert not process.returncode, output[-3000:]
    return process.returncode


def start(words: list[str]) -> subprocess.Popen:
    """A command as a process of its own, its output and errors in one pipe."""
    words = [sys.executable, *(("-m", "piza_jax.cli", *words[1:]) if words[0] == "piza" else words[1:])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    environment["XLA_FLAGS"] = " ".join(HASTY)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, env=environment, **pipes)


def adapted(words: list[str], new: str) -> list[str]:
    """The words of a command for this world: its sizes, and the name ``new`` for what it writes."""
    line = " ".join(words)
    for option in ("--workdir", "--output"):
        words = [word.replace(f"{option}=OUT", f"{option}={new}") for word in words]
    words = [FOUND_ELSEWHERE.get(word, word).replace("=piza-mini-base", "=BASE") for word in words]
    words = [new if word == "TARGET" else word for word in words]
    if words[:2] == ["piza", "train"]:
        return _training(words, new)
    if words[0] == "python" and words[2].startswith("tfds_sorec.build"):
        words = [word.replace("=DATA", f"={new}") for word in words]
    return [*words, *(begins(line, SIZES) or [[]])[0]]


def _training(words: list[str], new: str) -> list[str]:
    """Those of a training: its configuration in small, on the data that it names, in a folder of its own."""
    out = []
    for word in words:
        if word.startswith("--config="):
            argument = word.rpartition("/")[2].partition(":")[2]
            if "smoke" not in argument.split(","):
                word += ",smoke" if argument else ":smoke"
        if word.startswith("--workdir=") and Path(word.partition("=")[2]).exists():
            word = f"--workdir={new}"
        out.append(word)
    kinds = {"data_dir": "tfds", "annotations": "files"}
    given = [kind for name, kind in kinds.items() if any(word.startswith(f"--config.data.{name}=") for word in words)]
    if "configs/mini.py" in words[2]:
        given = given or ["mini"]
        out.append("--config.data.num_photos=2")
    return [*out, *(f"--config.data.kind={kind}" for kind in given), *TRAINING, *sizes_of_base()]


@functools.cache
def sizes_of_base() -> list[str]:
    """Settings that make the detector of a small configuration that of BASE."""
    wanted = _flat(open_model("BASE").config.detector)
    given = _flat(DetectorConfig.preset("tiny"))
    return [f"--config.model.detector.{name}={value}" for name, value in wanted.items() if value != given[name]]


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Fields of a data class and of those in it, by dotted name."""
    found = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        nested = dataclasses.is_dataclass(value)
        found.update(_flat(value, f"{prefix}{field.name}.") if nested else {f"{prefix}{field.name}": value})
    return found
