"""Curves of a run beside its metric files: loss, learning rate and accuracy by step, as PNG."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from piza_jax.draw_curve import line_chart
from piza_jax.training.writer import FILE, read_metrics

# Picture -> its title, and the scalars that are drawn where a run has them.
_CHARTS = {
    "loss": ("Loss", ("loss",)),
    "loss_parts": ("Parts of the loss, last layer", ("loss_cls", "loss_bbox", "loss_iou")),
    "history": ("Losses of the history network", ("history_stop", "history_progress")),
    "learning_rate": ("Learning rate", ("learning_rate",)),
    "accuracy": ("Accuracy on the evaluation split", ("eval/mAcc", "eval/Acc50", "eval/Acc75", "eval/mean_iou")),
}


def charts(workdir: str | os.PathLike[str]) -> dict[str, Image.Image]:
    """Pictures of what a run has recorded so far, by name: "loss", "learning_rate", "accuracy" and others.

    What it has not recorded yet is left out, as is everything where there is no metrics.jsonl.
    """
    if not (Path(workdir) / FILE).is_file():
        return {}
    lines = read_metrics(workdir)
    drawn = {}
    for name, (title, scalars) in _CHARTS.items():
        found = {scalar.removeprefix("eval/"): _points(lines, scalar) for scalar in scalars}
        shown = {scalar: points for scalar, points in found.items() if points}
        if shown:
            drawn[name] = line_chart(shown, title=title, across="step", up="")
    return drawn


def loss_chart(workdirs: Mapping[str, str | os.PathLike[str]], window: int = 1) -> Image.Image:
    """The losses of several runs in one picture, by name.

    Args:
        workdirs: folder of each run.
        window: each point is the mean of the last so many that were recorded; one of few samples says little.

    Raises:
        PizaError: none has recorded a loss.
    """
    lines = {name: _smoothed(_points(read_metrics(workdir), "loss"), window) for name, workdir in workdirs.items()}
    title = "Loss" if window == 1 else f"Loss, mean of {window}"
    return line_chart(lines, title=title, across="step", up="")


def save_charts(workdir: str | os.PathLike[str]) -> list[Path]:
    """Write them into the folder of the run as curve_NAME.png; gives their paths."""
    paths = []
    for name, picture in charts(workdir).items():
        path = Path(workdir) / f"curve_{name}.png"
        temporary = path.with_suffix(".tmp")
        picture.save(temporary, "PNG")
        os.replace(temporary, path)
        paths.append(path)
    return paths


def _points(lines: Sequence[Mapping[str, float | None]], name: str) -> list[tuple[float, float]]:
    """(step, value) of one scalar; a value that was not finite is stored as null and left out."""
    pairs = ((line.get("step"), line.get(name)) for line in lines)
    return [(float(step), float(value)) for step, value in pairs if step is not None and value is not None]


def _smoothed(points: Sequence[tuple[float, float]], window: int) -> list[tuple[float, float]]:
    """Each value from the first whole window on with the mean of those in it; of fewer points the mean of all."""
    window = min(window, len(points))
    ends = range(window, len(points) + 1) if points else ()
    return [(points[end - 1][0], sum(value for _, value in points[end - window : end]) / window) for end in ends]
