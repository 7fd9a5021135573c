"""The README's quickstart, word for word but for the installation and its size."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import quickstart
from tests.conftest import HASTY
from tests.test_task import ROOT


def command() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- quickstart command -->\n\n    .*?&& (python .*)\n", text)
    assert found, "the README has no quickstart command"
    return found[1]


def run(words: str) -> subprocess.CompletedProcess:
    environment = {
        **os.environ,
        "XLA_FLAGS": " ".join(HASTY),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return subprocess.run(words, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_quickstart_trains_evaluates_and_draws(tmp_path):
    words = f"{command()} --output={tmp_path} --steps=9 --records=8"
    first = run(words)
    assert first.returncode == 0, first.stderr
    table = (tmp_path / "table.md").read_text()
    assert table in first.stdout
    measured = {
        name: json.loads((tmp_path / f"{name}_train_s_0.json").read_text())["splits"]["test_a"]
        for name in quickstart.ROWS
    }
    assert all(one["count"] == 8 for one in measured.values())
    assert measured["zero_shot"]["mAcc"] < 0.1
    assert measured["zero_shot"]["mean_steps"] == measured["adapter_plus"]["mean_steps"] == 1
    assert measured["shipped"]["mAcc"] > measured["zero_shot"]["mAcc"] + 0.15
    assert measured["shipped"]["mean_steps"] == pytest.approx(3, abs=0.5)  # two and a last look
    strips = sorted((tmp_path / "strips").glob("*.png"))
    assert len(strips) == len(quickstart.ROWS) * quickstart.STRIPS
    assert Image.open(tmp_path / "loss.png").width > 600
    second = run(words)  # all of it is there already
    assert second.returncode == 0, second.stderr
    assert table in second.stdout


def test_a_wrong_setting_is_named_before_anything_is_drawn(tmp_path, capsys):
    assert quickstart.main([f"--output={tmp_path / 'out'}", "--set", "train.no_such=1"]) == 2
    assert "no_such" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
