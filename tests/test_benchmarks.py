"""Each benchmark runs at its small size, its sides agree, and its row is well formed; no test asks how fast."""

import re
import sys

import pytest

from benchmarks import cpu_training, crop, deformable, pipeline, single_pass, start_up, table, train_step, zoom

RUNS = {module.__name__.rpartition(".")[2]: module for module in (crop, deformable, pipeline, single_pass)}
LONG = {module.__name__.rpartition(".")[2]: module for module in (train_step, zoom)}


@pytest.mark.parametrize("name", [*RUNS, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)])
def test_small(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table, "RESULTS", tmp_path / "RESULTS.md")
    some = {
        "deformable": ["--no-memory", "--batch=1"],
        "zoom": ["--batch=2", "--peer_photos=1", "--profile"],
        "train_step": ["--profile", "--scan"],
    }
    more = some.get(name, [])
    row = (RUNS | LONG)[name].main(["--small", "--runs=1", "--append", *more])
    if name in LONG:
        part = r"ops/deformable_direct.py:\w+ \(backward\)" if name == "train_step" else r"ops/deformable_direct.py:\w+"
        assert re.search(rf"^\| {part} \| [\d.]+ \| [\d.]+ % \| \d+ \|$", capsys.readouterr().out, re.M)
    assert (tmp_path / "RESULTS.md").read_text().splitlines()[-1] == row
    cells = dict(zip(table.HEAD, re.split(r" \| ", row.strip("| ")), strict=True))
    assert re.match(r"\d+\.\d\d( \(bar [\d.]+\))?$", cells["peer / ours"])
    for side in ("ours", "peer"):
        assert re.match(r"[\d.]+ m?s \([\d.]+\.\.[\d.]+\)$", cells[side])
    assert cells["command"].startswith(f"`python -m benchmarks.{name} --small --runs=1")
    assert re.search(r"\d\.\de[+-]\d\d", cells["difference"])


def test_each_form_of_deformable_attention_is_timed_both_ways(monkeypatch):
    built = []
    make_ours = deformable.make_ours
    monkeypatch.setattr(deformable, "make_ours", lambda *inputs: built.append(inputs[3:]) or make_ours(*inputs))
    rows = deformable.main(["--small", "--batch=1", "--runs=1", "--forms"]).splitlines()
    forms = [form for form in deformable.FORMS if form != "kernel"]  # which needs a GPU
    assert built == [(form, backward) for form in forms for backward in (False, True)]
    assert len(rows) == 2 + len(forms)
    for form, row in zip(forms, rows[2:], strict=True):
        time = r"[\d.]+ ms \([\d.]+\.\.[\d.]+\)"
        assert re.fullmatch(rf"\| {form} \| {time} \| {time} \|", row)


@pytest.mark.parametrize("count", [0, 3])
def test_a_zoom_names_a_number_of_peer_photos_that_its_batch_has_not(count):
    with pytest.raises(zoom.PizaError, match=f"--peer_photos={count} with --batch=2; give 1..2"):
        zoom.main(["--batch=2", f"--peer_photos={count}"])


TRAINING = """
import json, os, sys
from pathlib import Path
words = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[2:])
rate = int(words["config.mesh.cpu_devices"]) * (3 if "MALLOC_ARENA_TEST" not in os.environ else 1)
Path(words["workdir"]).mkdir()
lines = [{"step": 1, "images_per_second": 0.1}] + [{"step": n, "images_per_second": rate} for n in (2, 3, 4)]
Path(words["workdir"], "metrics.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in lines))
"""


def test_training_on_a_cpu_is_compared_with_mallocs_defaults_on_one_device(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")  # what the user has set is not measured
    fake = tmp_path / "fake.py"
    fake.write_text(TRAINING)
    row = cpu_training.main(["--small", "--runs=2"], (sys.executable, str(fake)))
    cells = dict(zip(cpu_training.HEAD, row.strip("| ").split(" | "), strict=True))
    assert [cells[name].split()[0] for name in cpu_training.HEAD[4:8]] == ["1.00", "3.00", "6.00", "6.00"]
    fake.write_text("import sys; sys.exit('piza: no such config')")
    with pytest.raises(cpu_training.PizaError, match="the training failed: piza: no such config"):
        cpu_training.main(["--small", "--runs=1"], (sys.executable, str(fake)))


FAKE = """
import os, sys, time
from pathlib import Path
cache = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
print("warm" if cache.exists() else "cold", file=sys.stderr)
time.sleep(0 if cache.exists() else 0.4)
cache.mkdir(exist_ok=True)
assert sys.argv[1] == "ground" and sys.argv[4:] == ["--checkpoint", "model", "--max_steps", "5"], sys.argv
print("step 0: crop")
print("box (x0 y0 x1 y1 px): 1 2 3 4", flush=True)
time.sleep(0.3)
"""


def test_start_up_times_cold_and_warm_starts_to_the_box(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESULTS", tmp_path / "RESULTS.md")
    fake = tmp_path / "fake.py"
    fake.write_text(FAKE)
    arguments = ["--checkpoint=model", "--max_steps=5", "--runs=1", "--small", "--append"]
    row = start_up.main(arguments, (sys.executable, str(fake)))
    cells = dict(zip(start_up.HEAD, row.strip("| ").split(" | "), strict=True))
    seconds = {name: [float(x) for x in re.findall(r"\d+(?:\.\d+)?", cells[name])[:3]] for name in ("cold", "warm")}
    assert min(seconds["cold"]) > 0.4  # and the warm ones are not asserted: a busy machine takes its time
    assert cells["warm"].endswith("(bar 5)")
    assert cells["model, photo"] == "model, 240 x 320"
    fake.write_text("import sys; sys.exit('piza: no such model')")
    with pytest.raises(start_up.PizaError, match="gave no box: piza: no such model"):
        start_up.main(arguments, (sys.executable, str(fake)))
