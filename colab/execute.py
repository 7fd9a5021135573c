"""Run notebooks from top to bottom and store their outputs: ``python -m colab.execute colab/*.ipynb``.

PIZA_SMOKE=1 in the environment shrinks what they train to a minute on a CPU, which is what the tests do.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]


def execute(path: Path, timeout_s: int = 3600) -> nbformat.NotebookNode:
    """Run a notebook in a kernel of its own with this checkout on its path; gives it with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell that fails, with its traceback.
    """
    notebook = nbformat.read(path, as_version=4)
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, "PYTHONPATH": paths}
    client = NotebookClient(notebook, timeout=timeout_s, kernel_name="python3", resources={"metadata": {"path": ROOT}})
    client.execute(env=environment)
    return tidy(notebook)


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without what belongs to one machine or says a thing twice: times, progress bars, pictures in a second format."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data.pop("image/jpeg", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    return notebook


def main(arguments: Sequence[str] | None = None) -> None:
    """Execute and overwrite the notebooks named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="+", type=Path)
    for path in parser.parse_args(arguments).notebooks:
        nbformat.write(execute(path), path)
        print(path)


if __name__ == "__main__":
    main()
