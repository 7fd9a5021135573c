"""The commands of the README and the pages, run with their own options in a small world: few records, tiny models.

The files that they name are there before them, as a reader would have them, and what they are to write is there
after them. They run in the order of the pages, for some go on from what others made.
"""

import csv
import dataclasses
import functools
import importlib
import json
import re
import shutil
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from piza_jax import cli, compile_cache
from piza_jax.data.scenes import write_scenes
from piza_jax.grounder import open_model
from piza_jax.models.config import DetectorConfig
from tests import torch_models
from tests.test_docs import EVERY
from tests.test_task import ROOT

pytestmark = pytest.mark.slow

# What is not run here, by how a command begins -> the test of the same program, often at another size or by its parts.
ELSEWHERE = {
    "python -m pip": "the README's two commands; a whole run of CI",
    "python -m pytest": "a whole run of CI",
    "python -m mkdocs": "test_docs.py builds the site",
    "python -m colab.execute": "test_notebooks.py",
    "python -m benchmarks.quickstart": "test_quickstart.py",
    "python -m benchmarks.mini_table": "test_mini_table.py, test_quickstart.py",
    "python -m benchmarks.mini_base": "test_mini_base.py, how it counts look-alikes alone",
    "python -m benchmarks.decode": "test_decode_benchmark.py",
    "python -m benchmarks.start_up": "test_benchmarks.py, with a stand-in for piza",
    "python -m benchmarks.": "test_benchmarks.py",
    "python -m tfds_sorec.build_refcoco": "test_tfds_refcoco.py",
    "piza demo": "test_demo.py",
    "piza train --config=configs/piza_sorec.py:tpu --config.data.data_dir=DATA --workdir=WORKDIR --coordinator": (
        "test_processes.py, a small task in two and four processes, without this command line"
    ),
    "piza plan --config=configs/piza_sorec.py:tpu": "test_tpu_compile.py, a tiny model, where TPUs can be compiled for",
}
SENTENCE = "The red car in the left part of the street."
SMALL = [
    *("--config.train.num_steps=1", "--config.train.batch_size=8", "--config.evaluation.every=0"),
    *("--config.data.num_workers=0", "--config.data.canvas_hw=(64,64)", "--config.data.max_tokens=160"),
]
# Options of a command that keep it small, by its first words.
MORE = {
    "piza evaluate --checkpoint": ["--num_records=1", "--max_steps=2", "--num_strips=1"],
    "piza tune": ["--num_records=2", "--beams=1", "--stops", "0.5", "--backtracks", "0"],
    "piza export": ["--platforms=cpu", "--max_steps=1"],
    "piza ground": ["--max_steps=2"],
    "piza data --data_dir": ["--num=2"],
    "python -m tfds_sorec.build_mini": ["--scale=0.0001", "--workers=1"],
}
OUTPUTS = ("save", "output", "report", "strips", "preview", "draw", "workdir")


def begins(line, table):
    """The values of a table whose keys the line begins with, the longest key first."""
    return [table[key] for key in sorted(table, key=len, reverse=True) if line.startswith(key)]


COMMANDS = {" ".join(words): words for _, words in EVERY}
RUN = [line for line in COMMANDS if not begins(line, ELSEWHERE)]


def execute(words):
    """Run a command in this process; its exit status."""
    if words[0] == "piza":
        return cli.main(words[1:]) or 0
    return importlib.import_module(words[2]).main(words[3:])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with everything that the commands name, which they run in."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv(compile_cache.VARIABLE, str(folder / "compiled"))
        compile_cache.enable()  # most commands compile what one before has
        _write_records()
        _build_data()
        torch_models.hub_folder(folder / "SOURCE", bert_layers=1)
        assert execute(["piza", "convert", "SOURCE", "BASE"]) == 0
        train = ["piza", "train", f"--config={ROOT}/configs/piza_sorec.py:smoke", "--config.pretrained=BASE"]
        train += ["--config.data.kind=tfds", "--config.data.data_dir=DATA", *SMALL, *sizes_of_base()]
        assert execute([*train, "--workdir=WORKDIR"]) == 0
        assert execute(["piza", "convert", "WORKDIR", "ADAPTER", "--to=adapter", "--base=BASE"]) == 0
        yield folder
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


def _write_records():
    """SOREC's files, one photo, own data as a table, and somebody's answers."""
    write_scenes("FOLDER", 10, size=(320, 240))
    shutil.copy("FOLDER/trainS.json", "FOLDER/trainL.json")
    shutil.copytree("FOLDER/SODA-D/rawData/Images", "DIR")
    shutil.copy(sorted(Path("DIR").iterdir())[0], "PHOTO.jpg")
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


def _build_data():
    """SOREC, own data under two names, and SOREC-mini; and one of its streets."""
    own = "build_own", "--annotations=FILE.csv", "--images=DIR"
    mini = "build_mini", "--variants", "small", *MORE["python -m tfds_sorec.build_mini"]
    for name, *options in (("build", "--manual_dir=FOLDER"), own, (*own, "--name=birds"), mini):
        assert execute(["python", "-m", f"tfds_sorec.{name}", *options, "--data_dir=DATA"]) == 0
    assert execute(["piza", "data", "--draw=street.jpg", "--scene=3"]) == 0


def adapted(line, new):
    """The words of a command for this world: its sizes, and new names for what it writes."""
    words = list(COMMANDS[line])
    changes = {"SENTENCE": SENTENCE, "TARGET": new, "--annotations=FILE": "--annotations=FILE.csv"}
    words = [changes.get(word, word).replace("=piza-mini-base", "=BASE") for word in words]
    if words[1] == "train":
        return _training(words, new)
    if words[0] == "python" and words[2].startswith("tfds_sorec.build"):
        words = [word.replace("=DATA", f"={new}") for word in words]
    return [*words, *(begins(line, MORE) or [[]])[0]]


def _training(words, new):
    """Those of a training: its configuration in small, on the data that it names, in a folder of its own."""
    out = []
    for word in words:
        if word.startswith("--config="):
            word = f"--config={ROOT}/{word.removeprefix('--config=')}"
            word += ",smoke" if word.rpartition("/")[2].count(":") else ":smoke"
        if word.startswith("--workdir=") and Path(word.partition("=")[2]).exists():
            word = f"--workdir={new}"
        out.append(word)
    kinds = {"data_dir": "tfds", "annotations": "files"}
    given = [kind for name, kind in kinds.items() if any(word.startswith(f"--config.data.{name}=") for word in words)]
    if "configs/mini.py" in words[2]:
        given = given or ["mini"]
        out.append("--config.data.num_photos=2")
    return [*out, *(f"--config.data.kind={kind}" for kind in given), *SMALL, *sizes_of_base()]


@functools.cache
def sizes_of_base():
    """Settings that make the detector of a small configuration that of BASE."""
    wanted = flat(open_model("BASE").config.detector)
    given = flat(DetectorConfig.preset("tiny"))
    return [f"--config.model.detector.{name}={value}" for name, value in wanted.items() if value != given[name]]


def flat(config, prefix=""):
    """Fields of a data class and of those in it, by dotted name."""
    found = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        nested = dataclasses.is_dataclass(value)
        found.update(flat(value, f"{prefix}{field.name}.") if nested else {f"{prefix}{field.name}": value})
    return found


@pytest.mark.parametrize("line", RUN, ids=str)
def test_a_command_of_the_documentation_runs(line, world, tmp_path):
    words = adapted(line, str(tmp_path / "new"))
    named = [word.partition("=")[2] for word in words if re.match(rf"--({'|'.join(OUTPUTS)})=", word)]
    named += [str(tmp_path / "new")] if any(str(tmp_path / "new") in word for word in words) else []
    for path in map(Path, named):  # what another command has written under this name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    assert execute(words) == 0
    for name in named:
        assert Path(name).exists(), f"{line} left no {name}"


def test_what_is_not_run_here_names_tests_that_exist():
    for command, where in ELSEWHERE.items():
        assert any(line.startswith(command) for line in COMMANDS), f"no page shows {command}"
        for name in re.findall(r"test_\w+\.py", where):
            assert (ROOT / "tests" / name).is_file()
