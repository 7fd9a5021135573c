"""The loop itself: what it prints and writes, evaluation, NaN, pretrained weights."""

import jax.numpy as jnp
import numpy as np
import pytest

from piza_jax.errors import PizaError
from piza_jax.training import checkpoint, loop
from piza_jax.training.loop import fit
from piza_jax.training.throughput import Throughput
from piza_jax.training.writer import read_metrics
from tests import tiny_task


def run(workdir, overrides=None, **options):
    config = tiny_task.make_config(**{"train.num_steps": 6, **(overrides or {})})
    return fit(tiny_task.make_task(config, **options), config, workdir)


def test_learns_and_reports(tmp_path, capsys):
    overrides = {"train.num_steps": 60, "train.log_every": 10, "checkpoint.every": 100}
    result = run(tmp_path, {**overrides, "optimizer.learning_rate": 3e-2, "optimizer.decay_epochs": (8.0,)})
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines] == list(range(10, 61, 10))
    assert lines[-1]["loss"] < 0.3 * lines[0]["loss"]
    assert result.scalars["loss"] == lines[-1]["loss"]
    assert {"grad_norm", "learning_rate", "absolute_error", "images_per_second", "flops_per_second"} <= set(lines[0])
    # The rate falls by ten after epoch 8 of 5 steps.
    assert [round(line["learning_rate"], 6) for line in lines] == [3e-2, 3e-2, 3e-2, 3e-2, 3e-3, 3e-3]
    printed = capsys.readouterr().out
    for part in ("backend cpu: 8 x cpu", "mesh data 8 x fsdp 1 x tensor 1", "| layers/0 ", "289 parameters are trained",
                 "memory a device", "step 60/60"):  # fmt: skip
        assert part in printed
    assert checkpoint.latest_step(tmp_path) == 60
    parameters = (tmp_path / "parameters.txt").read_text()
    assert "backbone/kernel" in parameters
    assert "layers/0/kernel" in parameters


def test_runs_of_several_seeds_share_a_program(tmp_path, monkeypatch):
    def seeded(seed, compiled=None):
        config = tiny_task.make_config(**{"train.num_steps": 6, "seed": seed})
        return fit(tiny_task.make_task(config), config, tmp_path / f"{seed} {compiled is None}", compiled)

    first, own = seeded(0), seeded(1)
    monkeypatch.setattr(loop, "compile_step", None)
    assert seeded(1, first.compiled).scalars == own.scalars
    assert own.scalars["loss"] != first.scalars["loss"]


def test_epochs_set_the_number_of_steps(tmp_path):
    assert run(tmp_path, {"train.num_steps": 0, "train.num_epochs": 2.0}).step == 10


def test_evaluation_is_called_with_the_current_model(tmp_path):
    seen = {}

    def evaluate(model, step):
        seen[step] = np.asarray(model.head.kernel[...])
        return {"score": step / 10}

    run(tmp_path, {"evaluation.every": 4}, evaluate=evaluate)
    assert sorted(seen) == [4, 6]
    assert np.abs(seen[4] - seen[6]).max() > 0
    assert [line["eval/score"] for line in read_metrics(tmp_path) if "eval/score" in line] == [0.4, 0.6]


def test_evaluation_that_was_cut_off_is_made_up_for(tmp_path):
    def cut_off(model, step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, evaluate=cut_off)
    run(tmp_path, evaluate=lambda model, step: {"score": float(step)})
    assert [line["eval/score"] for line in read_metrics(tmp_path) if "eval/score" in line] == [6.0]


@pytest.mark.parametrize("log_every", [1, 100])
def test_nan_stops_and_overwrites_nothing(tmp_path, log_every):
    # Sample 7 of 40 comes some time in the first epoch of five batches, with checkpoints after each batch.
    overrides = {"checkpoint.every": 1, "train.log_every": log_every, "checkpoint.keep": 9}
    with pytest.raises(PizaError, match=r"loss is nan at step \d+; .*Last good checkpoint") as caught:
        run(tmp_path, overrides, poison=7)
    step = int(str(caught.value).split("at step ")[1].split(";")[0])
    assert 1 <= step <= 5
    assert checkpoint.latest_step(tmp_path) == (step - 1 or None)
    steps = [entry.name for entry in (tmp_path / "checkpoints").iterdir()]
    assert sorted(steps) == [str(number) for number in range(1, step)]


def test_gradient_that_is_not_finite_stops_too(tmp_path):
    def loss(model, batch, key):
        value, scalars = tiny_task.loss(model, batch, key)
        # sqrt has an infinite slope at 0: the value is finite and its gradient is not.
        return value + jnp.sqrt(0.0 * jnp.sum(model.head.kernel[...])), scalars

    with pytest.raises(PizaError, match=r"grad_norm is (nan|inf) at step 1; .*none was written yet"):
        run(tmp_path, loss=loss)
    assert checkpoint.latest_step(tmp_path) is None


def test_pretrained_weights_replace_random_ones(tmp_path):
    given = np.full((8, 16), 0.125, np.float32)
    models = []
    run(
        tmp_path,
        {"train.num_steps": 1},
        pretrained=lambda names: {"backbone/kernel": given},
        evaluate=lambda model, step: models.append(np.asarray(model.backbone.kernel[...])) or {},
    )
    np.testing.assert_array_equal(models[0], given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"backbone/kernel": np.zeros((8, 17))}, r"backbone/kernel is \(8, 17\) instead of \(8, 16\)"),
        ({"spine/kernel": np.zeros(1)}, "spine/kernel is unknown to the model"),
    ],
)
def test_pretrained_weights_that_do_not_fit(tmp_path, given, message):
    with pytest.raises(PizaError, match=message):
        run(tmp_path, pretrained=lambda names: given)


def test_data_that_ends_early(tmp_path):
    config = tiny_task.make_config(**{"train.num_steps": 6})
    task = tiny_task.make_task(config)
    batches = [batch for batch, _ in zip(task.dataset, range(2), strict=False)]
    short = type(task)(**{**task.__dict__, "dataset": batches})
    with pytest.raises(PizaError, match="the data ended at step 3 of 6"):
        fit(short, config, tmp_path)


def test_nothing_to_train(tmp_path):
    config = tiny_task.make_config()
    config.optimizer.rate_factors = ()
    task = tiny_task.make_task(config)
    frozen = type(task)(**{**task.__dict__, "split": lambda model: tiny_task.nnx.split(model, lambda *_: False, ...)})
    with pytest.raises(PizaError, match="peft='tiny' leaves nothing to train"):
        fit(frozen, config, tmp_path)


def test_throughput_leaves_pauses_out(monkeypatch):
    clock = iter([0.0, 10.0, 10.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    meter = Throughput(batch_size=4, flops=100.0)
    meter.step()
    meter.step()
    meter.exclude(6.0)
    assert meter.read() == {"images_per_second": pytest.approx(2.0), "flops_per_second": pytest.approx(50.0)}
    assert meter.read() == {}
