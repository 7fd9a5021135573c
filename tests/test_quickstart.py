"""The README's quickstart, word for word but for the installation."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.test_task import ROOT


def _run(command: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "XLA_FLAGS": "", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_quickstart_compares_zooming_with_a_single_look(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- quickstart command -->\n\n    .*?&& (python .*)\n", text)
    assert found, "the README has no quickstart command"
    done = _run(found[1].replace("out/quickstart", str(tmp_path)))
    table = (tmp_path / "table.md").read_text()
    assert table in done.stdout
    rows = {cells[1].strip(): cells[4] for cells in (line.split("|") for line in table.splitlines()[2:])}
    assert list(rows) == ["zero-shot", "piza-mini, as shipped", "Adapter+", "PIZA-Adapter+"]
    acc50 = {name: float(cell.split("/")[1]) for name, cell in rows.items()}
    assert acc50["zero-shot"] < acc50["PIZA-Adapter+"]
    assert acc50["Adapter+"] < acc50["piza-mini, as shipped"]
    strips = sorted((tmp_path / "strips").glob("*.png"))
    assert len(strips) == 4 * 6
    for picture in (*strips, tmp_path / "loss.png"):
        assert Image.open(picture).width > 600
    one = _run((tmp_path / "try.sh").read_text())
    assert "box (x0 y0 x1 y1 px):" in one.stdout
    assert "the shipped piza-mini is used" in one.stderr
    assert Image.open(tmp_path / "zoom.png").width > 600
