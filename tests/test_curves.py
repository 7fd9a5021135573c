"""Curves of a run: drawn from its metric file, left out where there is nothing, and redrawn as it goes on."""

import numpy as np
from PIL import Image

from piza_jax.training import curves
from piza_jax.training.curves import charts, loss_chart, save_charts
from piza_jax.training.writer import MetricsWriter


def test_each_kind_of_scalar_has_its_picture(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for step in range(1, 6):
            writer.write(step, {"loss": 9.0 / step, "learning_rate": 1e-3, "images_per_second": 4.0})
        writer.write(5, {"eval/mAcc": 0.25, "eval/Acc50": 0.5})
    paths = save_charts(tmp_path)
    assert [path.name for path in paths] == ["curve_loss.png", "curve_learning_rate.png", "curve_accuracy.png"]
    for path in paths:
        assert len(np.unique(np.asarray(Image.open(path)).reshape(-1, 3), axis=0)) > 3


def test_a_value_that_was_not_finite_is_left_out(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"loss": float("nan")})
        assert charts(tmp_path) == {}
        writer.write(2, {"loss": 3.0})
    assert list(charts(tmp_path)) == ["loss"]


def test_pictures_follow_the_run(tmp_path):
    assert charts(tmp_path) == {}
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"loss": 3.0})
        (path,) = save_charts(tmp_path)
        before = path.read_bytes()
        writer.write(2, {"loss": 1.0})
        save_charts(tmp_path)
        assert path.read_bytes() != before


def test_losses_of_several_runs_are_smoothed(tmp_path, monkeypatch):
    for name, factor in (("one", 1), ("other", 10)):
        with MetricsWriter(tmp_path / name) as writer:
            for step in range(1, 6):
                writer.write(step, {"loss": float(factor * step)})
    drawn = {}
    monkeypatch.setattr(curves, "line_chart", lambda lines, **_: drawn.update(lines))
    runs = {name: tmp_path / name for name in ("one", "other")}
    loss_chart(runs, window=3)
    assert drawn == {"one": [(3, 2), (4, 3), (5, 4)], "other": [(3, 20), (4, 30), (5, 40)]}
    loss_chart(runs, window=50)
    assert drawn["one"] == [(5, 3)]
    loss_chart(runs)
    assert drawn["one"] == [(step, step) for step in range(1, 6)]
