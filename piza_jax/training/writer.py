"""Scalars of a run: one JSON line a step in metrics.jsonl, and TensorBoard event files, behind one interface."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

from piza_jax.errors import PizaError

FILE = "metrics.jsonl"


class MetricsWriter:
    """Appends scalars to workdir/metrics.jsonl and to event files; safe to kill at any moment and to resume.

    A line is one JSON object {"step": int, name: number or null, ...}, on disk when write() returns.
    """

    def __init__(self, workdir: str | os.PathLike[str], resume_step: int = 0):
        """Open for a run that continues after resume_step (0: from the start); later lines are dropped.

        Raises:
            PizaError: the folder cannot be written.
        """
        self._path = Path(workdir) / FILE
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._drop_after(resume_step)
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
            self._events = SummaryWriter(str(workdir), purge_step=resume_step + 1 if resume_step else None)
        except OSError as error:
            raise PizaError(f"cannot write metrics to {self._path}: {error}") from error

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Record scalars of one step; a value that is not finite is stored as null. PizaError when the disk refuses."""
        values = {name: float(value) for name, value in scalars.items()}
        line = {"step": step, **{name: value if math.isfinite(value) else None for name, value in values.items()}}
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            for name, value in values.items():
                self._events.add_scalar(name, value, step)
            self._events.flush()
        except OSError as error:
            raise PizaError(f"cannot write metrics of step {step} to {self._path}: {error}") from error

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._events.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _drop_after(self, step: int) -> None:
        if not self._path.exists():
            return
        lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if (found := _step_of(line)) is not None and found <= step]
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        os.replace(temporary, self._path)


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Lines of workdir/metrics.jsonl as dictionaries, in order; a last line that a kill cut short is left out."""
    lines = (Path(workdir) / FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    return [json.loads(line) for line in lines if _step_of(line) is not None]


def _step_of(line: str) -> int | None:
    try:
        step = json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None
