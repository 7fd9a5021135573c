"""Checkpoints: what is saved, restoring on other hardware, and refusals."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from piza_jax.errors import PizaError
from piza_jax.training import checkpoint, sharding
from piza_jax.training import config as configs
from piza_jax.training.loop import fit
from piza_jax.training.program import Program
from piza_jax.training.writer import read_metrics
from tests import tiny_task


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of six steps on data 2 x fsdp 4, with checkpoints of steps 3 and 6."""
    workdir = tmp_path_factory.mktemp("trained")
    config = tiny_task.make_config(**{"train.num_steps": 6, "mesh.data": 2, "mesh.fsdp": 4})
    fit(tiny_task.make_task(config), config, workdir)
    return workdir, config


@pytest.fixture
def copy(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    return tmp_path / "run", trained[1]


def targets(config, data, fsdp, width=16):
    """Abstract trainable and frozen parameters and optimiser state of the tiny task on a mesh."""
    devices = jax.devices()[: data * fsdp]
    mesh = sharding.make_mesh(data, fsdp, devices=devices)
    return Program(tiny_task.make_task(config, width), config, mesh, 6).arguments()


def restore(workdir, config, data, fsdp, width=16):
    state, frozen = targets(config, data, fsdp, width)
    iterator = iter(tiny_task.make_dataset(8))
    with checkpoint.Checkpoints(workdir) as checkpoints:
        return checkpoints.restore(state.trainable, state.optimizer, iterator), checkpoints.restore_frozen(frozen)


def test_layout_and_what_is_stored_once(trained):
    workdir, _ = trained
    assert sorted(entry.name for entry in (workdir / "checkpoints").iterdir()) == ["3", "6"]
    for name in ("config.json", "metrics.jsonl", "parameters.txt", "frozen"):
        assert (workdir / name).exists()
    sizes = {
        name: sum(file.stat().st_size for file in (workdir / "checkpoints" / "6" / name).rglob("*") if file.is_file())
        for name in ("trainable", "optimizer", "data")
    }
    assert all(sizes.values())
    assert "backbone" not in (workdir / "checkpoints" / "6" / "trainable" / "_METADATA").read_text()


@pytest.mark.parametrize(("data", "fsdp"), [(1, 1), (8, 1), (1, 8)])
def test_restores_on_other_hardware(trained, data, fsdp):
    workdir, config = trained
    (step, trainable, optimizer), frozen = restore(workdir, config, data, fsdp)
    (_, original, moments), frozen_original = restore(workdir, config, 2, 4)
    assert step == 6
    for found, expected in ((trainable, original), (frozen, frozen_original), (optimizer, moments)):
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(expected))
    assert trainable["layers/0/kernel"].sharding.mesh.shape["fsdp"] == fsdp
    assert float(jnp.abs(trainable["layers/0/kernel"]).sum()) > 0


def train_on(workdir, monkeypatch, data, fsdp, steps):
    """Train up to a step on so many devices: all losses so far, and where a kernel lies at the end."""
    mesh, places = sharding.make_mesh(data, fsdp, devices=jax.devices()[: data * fsdp]), []
    monkeypatch.setattr(sharding, "mesh_of", lambda settings: mesh)
    config = tiny_task.make_config(**{"train.num_steps": steps, "mesh.data": data, "mesh.fsdp": fsdp})

    def evaluate(model, step):
        places.append(model.layers[0].kernel[...].sharding)
        return {}

    fit(tiny_task.make_task(config, evaluate=evaluate), config, workdir)
    return [line["loss"] for line in read_metrics(workdir) if "loss" in line], places[-1]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Losses of six steps on one device."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        losses, _ = train_on(tmp_path_factory.mktemp("undisturbed"), monkeypatch, 1, 1, 6)
    assert len(set(losses)) == 6
    return losses


@pytest.mark.parametrize(
    ("before", "after"),
    [((1, 8), (8, 1)), ((2, 4), (1, 1)), ((1, 1), (8, 1)), ((8, 1), (1, 8))],
    ids=["fsdp to data", "eight to one", "one to eight", "data to fsdp"],
)
def test_losses_go_on_equal_on_other_hardware(undisturbed, tmp_path, monkeypatch, capsys, before, after):
    _, place = train_on(tmp_path, monkeypatch, *before, 3)
    assert place.is_fully_replicated == (before[1] == 1)
    losses, place = train_on(tmp_path, monkeypatch, *after, 6)
    assert "resumed from step 3" in capsys.readouterr().out
    assert place.is_fully_replicated == (after[1] == 1)
    assert len(place.device_set) == after[0] * after[1]
    np.testing.assert_allclose(losses, undisturbed, rtol=1e-5)


def test_kept_checkpoints_and_iterator_position(tmp_path):
    dataset = tiny_task.make_dataset(4)
    iterator = iter(dataset)
    expected = []
    with checkpoint.Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in range(1, 6):
            next(iterator)
            values = {"kernel": jnp.full((300, 300), float(step))}
            checkpoints.save(step, values, {"count": jnp.int32(step)}, iterator)
            values["kernel"].delete()  # the trainer donates it to the next step while the save is on its way
        expected = next(iterator)
    assert checkpoint.latest_step(tmp_path) == 5
    assert {entry.name for entry in (tmp_path / "checkpoints").iterdir()} == {"4", "5"}
    sharded = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    again = iter(dataset)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        step, values, optimizer = checkpoints.restore(
            {"kernel": jax.ShapeDtypeStruct((300, 300), jnp.float32, sharding=sharded)},
            {"count": jax.ShapeDtypeStruct((), jnp.int32, sharding=sharded)},
            again,
        )
    assert (step, int(optimizer["count"])) == (5, 5)
    assert (np.asarray(values["kernel"]) == 5.0).all()
    np.testing.assert_array_equal(next(again)["x"], expected["x"])


def test_workdir_of_another_configuration(copy):
    workdir, config = copy
    before = (workdir / "config.json").read_bytes()
    other = config.copy_and_resolve_references()
    other.optimizer.learning_rate = 0.5
    other.seed = 4
    with pytest.raises(PizaError, match=r"optimizer.learning_rate: 0.01 there, 0.5 now; seed: 3 there, 4 now"):
        checkpoint.prepare_workdir(workdir, other)
    assert (workdir / "config.json").read_bytes() == before


def test_free_settings_may_change(copy):
    workdir, config = copy
    changed = config.copy_and_resolve_references()
    changed.train.num_steps, changed.mesh.fsdp = 9, 1
    notes = checkpoint.prepare_workdir(workdir, changed)
    assert sorted(notes) == ["mesh.fsdp: 4 there, 1 now", "train.num_steps: 6 there, 9 now"]
    assert checkpoint.read_config(workdir).train.num_steps == 9


def test_a_run_from_before_a_setting_has_what_was_done_then(copy):
    workdir, config = copy
    old, new = config.copy_and_resolve_references(), config.copy_and_resolve_references()
    with old.unlocked(), new.unlocked():
        old.data = {"num_workers": 0}
        new.data = {"num_workers": 0, "scaled_decode": False, "expressions_a_photo": 1}
        new.zoom = {"stop_threshold": 0.95}
    (workdir / "config.json").write_text(configs.to_json(old))
    assert checkpoint.prepare_workdir(workdir, new) == []
    (workdir / "config.json").write_text(configs.to_json(old))
    new.data.scaled_decode = True
    with pytest.raises(PizaError, match=r"data.scaled_decode: False there, True now"):
        checkpoint.prepare_workdir(workdir, new)


def test_config_may_change_before_the_first_checkpoint(tmp_path):
    config = tiny_task.make_config()
    checkpoint.prepare_workdir(tmp_path, config)
    config.seed = 99
    assert checkpoint.prepare_workdir(tmp_path, config) == []
    assert checkpoint.read_config(tmp_path).seed == 99


def test_checkpoint_of_another_model(copy):
    workdir, config = copy
    with pytest.raises(PizaError, match=r"another configuration: .*layers/0/bias is \(16,\) instead of \(24,\)"):
        restore(workdir, config, 1, 1, width=24)


@pytest.mark.parametrize("part", ["trainable", "frozen"])
def test_damaged_checkpoint(copy, part):
    workdir, config = copy
    folder = workdir / "frozen" if part == "frozen" else workdir / "checkpoints" / "6" / part
    for file in folder.rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(PizaError, match=f"cannot read the checkpoint .*{'frozen' if part == 'frozen' else '6'}"):
        restore(workdir, config, 1, 1)


def test_missing_pieces(tmp_path, copy):
    with pytest.raises(PizaError, match=r"no folder of a trained model: it has no config.json"):
        checkpoint.read_config(tmp_path / "nowhere")
    workdir, config = copy
    shutil.rmtree(workdir / "frozen")
    with pytest.raises(PizaError, match=r"cannot read the checkpoint .*frozen"):
        restore(workdir, config, 1, 1)
    (workdir / "config.json").write_text("{")
    with pytest.raises(PizaError, match=r"cannot read .*config.json"):
        checkpoint.read_config(workdir)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(PizaError, match="cannot use"):
        checkpoint.Checkpoints(file)


def test_config_file_is_plain_json(trained):
    workdir, config = trained
    assert json.loads((workdir / "config.json").read_text())["train"]["num_steps"] == config.train.num_steps
