"""The notebooks run from top to bottom at smoke size, and are committed with their outputs."""

import shutil

import nbformat
import pytest

from colab import execute
from colab.execute import ROOT
from tests.conftest import HASTY

NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))


def outputs(notebook, kind):
    return [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if kind in output.get("data", {}) or output.output_type == kind
    ]


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == ["fine_tune", "ground", "own_data"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_committed(path):
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert outputs(notebook, "image/png")
    assert not outputs(notebook, "error")
    assert path.stat().st_size < 4e6


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path, monkeypatch, tmp_path):
    monkeypatch.setenv("PIZA_SMOKE", "1")
    monkeypatch.setenv("PIZA_PLACE", str(tmp_path))
    monkeypatch.setenv("XLA_FLAGS", " ".join(HASTY))
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    assert not execute.main([str(copy)])
    notebook = nbformat.read(copy, as_version=4)
    assert len(outputs(notebook, "image/png")) >= 2
    assert not outputs(notebook, "error")
