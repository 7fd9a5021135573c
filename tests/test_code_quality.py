"""Formatter, linter, type checker and import rules, all clean."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "ruff", "format", "--check", "."],
        [sys.executable, "-m", "ruff", "check", "."],
        [sys.executable, "-m", "mypy"],
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"],
    ],
    ids=["format", "lint", "types", "imports"],
)
def test_clean(command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_is_longer_than_500_lines():
    files = [
        path for folder in ("piza_jax", "tfds_sorec", "configs", "tests") for path in (ROOT / folder).rglob("*.py")
    ]
    assert len(files) > 50
    assert [str(path) for path in files if len(path.read_text().splitlines()) > 500] == []
