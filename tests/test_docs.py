"""What the documentation says can be done: links resolve, commands parse, figures and the example are real."""

import ast
import importlib
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from flax import nnx
from PIL import Image

from benchmarks import table
from docs import make_figures
from docs.examples import ssf
from piza_jax import cli
from piza_jax.cli_examples import EXAMPLES
from piza_jax.models.params import flatten_state
from piza_jax.training.config import load_config
from tests import tiny_detector
from tests.test_task import ROOT

PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md"), *(ROOT / "tfds_sorec").glob("*.md")})


def blocks(text):
    """Code blocks, fenced or indented, as (language, text)."""
    for found in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.M | re.S):
        yield found[1], found[2]
    plain = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for found in re.finditer(r"(?:^    .*\n?)+", plain, re.M):
        yield "", re.sub("^    ", "", found[0], flags=re.M)


def commands(page):
    """Commands of piza and of modules in a page's code blocks, as lists of words."""
    for language, text in blocks(page.read_text(encoding="utf-8")):
        if language not in ("", "bash", "sh"):
            continue
        for line in re.sub(r"\\\n\s*", "", text).splitlines():
            for part in re.split(r"\s&&\s", re.sub(r"\s+#.*", "", line)):
                words = shlex.split(re.sub(r"\[(--.*?)\]", r"\1", part).replace("...", "")) if "'" not in part else []
                if words[:1] == ["piza"] or words[:2] == ["python", "-m"]:
                    yield words


EVERY = [(page.relative_to(ROOT), words) for page in PAGES for words in commands(page)]


def parse(words):
    """A command of piza by its own parser, with the settings of a training by its configuration file."""
    options, rest = cli._parser().parse_known_args(words)
    assert [word for word in rest if not word.startswith("--config.")] == []
    if options.command == "train":
        load_config(str(ROOT / options.config), rest)


@pytest.mark.parametrize(("page", "words"), EVERY, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_commands_are_ones_that_exist(page, words, monkeypatch):
    if words[0] == "piza":
        parse(words[1:])
        return
    module, arguments = words[2], words[3:]
    assert importlib.util.find_spec(module), f"{page} runs {module}, which does not exist"
    if module.startswith("tfds_sorec.build"):
        shown = io.StringIO()
        with redirect_stdout(shown), pytest.raises(SystemExit):
            importlib.import_module(module).main(["--help"])
        for word in arguments:
            option = word.split("=")[0]
            assert not option.startswith("--") or re.search(rf"{option}\b", shown.getvalue()), f"{page}: {option}"


def test_enough_commands_were_found():
    assert len(EVERY) > 30
    assert {words[1] for _, words in EVERY if words[0] == "piza"} >= EXAMPLES.keys() - {"version"}


@pytest.mark.parametrize("command", EXAMPLES)
def test_help_shows_examples_that_parse(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    shown = capsys.readouterr().out
    for line in EXAMPLES[command]:
        assert line in shown
        words = shlex.split(line)
        assert words[:2] == ["piza", command]
        parse(words[1:])


def test_a_shell_can_complete_commands_and_options():
    pytest.importorskip("argcomplete")
    found = {}
    for line in ("piza gr", "piza ground --back"):
        environment = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": " "}
        script = "import os, sys; os.dup2(1, 8); sys.argv = ['piza']; from piza_jax.cli import main; main()"
        environment = {**os.environ, **environment, "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
        done = subprocess.run([sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True)
        found[line] = done.stdout.split()
    assert found == {"piza gr": ["ground"], "piza ground --back": ["--backtrack"]}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_resolve(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(\s*([^)#\s]+)[^)]*\)", text):
        if not re.match(r"(https?|mailto):", target):
            assert (page.parent / target).exists(), f"{page} points to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_the_pages_imports_what_exists(page):
    for language, text in blocks(page.read_text(encoding="utf-8")):
        if language != "python" or "--8<--" in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)
            elif isinstance(node, ast.Import):
                assert all(importlib.import_module(alias.name) for alias in node.names)


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    run = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 12
    for page in pages:
        assert not re.search(r'(src|rel="stylesheet" href)="(https?:)?//', page.read_text(encoding="utf-8")), page
    reference = (tmp_path / "site" / "api" / "use.html").read_text(encoding="utf-8")
    assert "Find what each expression names" in reference


def test_the_figures_are_those_that_the_code_draws(tmp_path):
    make_figures.main([str(tmp_path)])
    drawn = sorted(tmp_path.iterdir())
    assert [path.name for path in drawn] == [path.name for path in sorted((ROOT / "docs" / "figures").iterdir())]
    for path in drawn:
        committed = Image.open(ROOT / "docs" / "figures" / path.name)
        difference = np.asarray(Image.open(path).convert("RGB")).astype(int) - np.asarray(committed.convert("RGB"))
        assert np.abs(difference).mean() < 1, path.name


@pytest.mark.slow
def test_the_peft_example_starts_as_the_detector_and_trains_only_what_it_adds():
    plain = tiny_detector.make_model().detector
    batch = tiny_detector.batch(size=2)
    images = batch["image"].astype(np.float32) / 255

    def look(detector):
        text = detector.encode_text(batch["input_ids"], batch["token_mask"])
        return detector(images, batch["valid_hw"], text, None, None)

    before = jax.jit(lambda state: look(nnx.merge(nnx.graphdef(plain), state, copy=True)))(nnx.state(plain))
    names = set(flatten_state(nnx.state(plain)))
    ssf.attach(plain, rngs=nnx.Rngs(0))
    graph, train, frozen = ssf.split(plain)
    assert names == set(flatten_state(frozen))
    assert {name.rsplit("/", 1)[1] for name in flatten_state(train)} == {"ssf_scale", "ssf_shift"}

    @jax.jit
    def loss(train, frozen):
        found = look(nnx.merge(graph, train, frozen, copy=True))
        return jnp.sum(jax.nn.sigmoid(found.logits[-1])), found

    (_, after), gradients = jax.value_and_grad(loss, has_aux=True)(train, frozen)
    np.testing.assert_array_equal(after.boxes, before.boxes)
    sizes = [float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradients)]
    assert max(sizes) > 0
    assert np.isfinite(sizes).all()
    text = (ROOT / "docs" / "examples" / "ssf.py").read_text()
    lines = [
        line for line in text.splitlines() if line.strip() and not line.strip().startswith(('"""', "import", "from"))
    ]
    assert len(lines) <= 30


def test_speeds_in_the_readme_are_rows_of_the_results():
    def rows(path, cells):
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in lines if line.startswith("| ")]
        return [row for row in found if len(row) == cells and row[-1] not in ("ratio", "command")]

    measured = {
        tuple(cell.split(" (")[0] for cell in row[5:8])
        for row in rows(ROOT / "benchmarks" / "RESULTS.md", len(table.HEAD))
    }
    shown = [tuple(row[2:]) for row in rows(ROOT / "README.md", 5)]
    assert shown
    assert set(shown) <= measured


def test_the_citation_names_the_software_and_the_paper():
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert found["cff-version"] == "1.2.0"
    assert found["type"] == "software"
    assert found["version"] == cli.piza_jax.__version__
    (paper,) = found["references"]
    assert paper["title"] == "Referring Expression Comprehension for Small Objects"
    assert found["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT")
