"""The README's quickstart, word for word but for the installation: it must end with its scenes grounded."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.test_task import ROOT


@pytest.mark.slow
def test_quickstart_grounds_its_scenes(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- quickstart command -->\n\n    .*?&& (piza .*)\n", text)
    assert found, "the README has no quickstart command"
    command = found[1].replace("out/quickstart", str(tmp_path))
    environment = {**os.environ, "XLA_FLAGS": "", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    run = subprocess.run(command, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    measured = result["metrics"]["scenes"]["all"]
    assert measured["count"] == 8
    assert measured["Acc50"] >= 7 / 8, measured
    assert measured["mean_steps"] == pytest.approx(2, abs=0.5)
    strips = sorted((tmp_path / "strips").glob("*.png"))
    assert len(strips) == 8
    assert all(Image.open(strip).width > 600 for strip in strips)
