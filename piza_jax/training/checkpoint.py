"""Checkpoints of a run (the one file that imports orbax) and loading a trained model from its folder.

A workdir holds config.json, frozen/ (parameters that never change, written once) and checkpoints/STEP (trainable
parameters, optimiser, step, state of the data iterator). Orbax writes each step beside its final name and renames it
when complete, so that a kill or a full disk leaves the steps before it as they were.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp

from piza_jax.errors import PizaError
from piza_jax.models.params import check_same, flatten_state, unflatten_state
from piza_jax.peft import select
from piza_jax.piza.abstract import abstract_detector
from piza_jax.piza.detector import PizaDetector, config_from_dict
from piza_jax.piza.zoom_config import defaults_of_training
from piza_jax.training import config as configs

CONFIG, CHECKPOINTS, FROZEN = "config.json", "checkpoints", "frozen"
_FROZEN_CURE = "restore it from a copy, or train again in an empty workdir"

# Keys that may change between two starts of one run: they steer reporting, hardware and place, not the mathematics.
FREE_KEYS = ("train.log_every", "train.num_epochs", "train.num_steps", "checkpoint.", "evaluation.", "mesh.",
             "model.detector.remat", "model.detector.scan_layers",
             "data.num_workers", "data.cache_dir", "data.data_dir", "data.images", "data.annotations")  # fmt: skip


def _not_orbax_traceback(record: logging.LogRecord) -> bool:
    return not (record.exc_info and "orbax" in record.pathname)


# Orbax logs the traceback of a failed save in its own thread; the same error is raised here as a PizaError.
logging.getLogger("absl").addFilter(_not_orbax_traceback)


class Checkpoints:
    """Saves and restores the states of one run; use as a context manager, which waits for the last save."""

    def __init__(self, workdir: str | os.PathLike[str], *, keep: int = 3):
        """Open (and make) workdir; keep is how many of the latest checkpoints stay. PizaError if it cannot be made."""
        self.workdir = Path(workdir).resolve()
        self._pending: int | None = None
        training = ocp.training
        try:
            (self.workdir / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
            self._checkpointer = training.Checkpointer(
                self.workdir / CHECKPOINTS,
                preservation_policy=training.preservation_policies.LatestN(keep),
                cleanup_tmp_directories=True,
            )
        except OSError as error:
            raise PizaError(f"cannot use {self.workdir} as workdir: {error}") from error

    @property
    def latest(self) -> int | None:
        """Step of the last complete checkpoint on disk, None where there is none."""
        return latest_step(self.workdir)

    def save(self, step: int, trainable: Any, optimizer: Any, iterator: Any) -> None:
        """Start an asynchronous save, after the one before has ended.

        The arrays and the iterator may be changed as soon as this returns.

        Raises:
            PizaError: this save or the one before could not be written; older checkpoints are untouched.
        """
        self.wait()
        state = {"trainable": trainable, "optimizer": {"step": step, "state": optimizer}, "data": iterator}
        self._pending = step
        with self._reporting():
            self._checkpointer.save_checkpointables_async(step, state, force=True)

    def save_frozen(self, frozen: Mapping[str, jax.Array]) -> None:
        """Write the frozen parameters; call it once, before the first save. PizaError if they cannot be written."""
        if frozen:
            try:
                ocp.save(self.workdir / FROZEN, dict(frozen), overwrite=True)
            except Exception as error:
                raise PizaError(f"cannot write {self.workdir / FROZEN}: {_first_line(error)}") from error

    def restore(self, trainable: Any, optimizer: Any, iterator: Any) -> tuple[int, Any, Any]:
        """Load the last checkpoint onto the shardings of the abstract trees given, and set the iterator's state.

        Args:
            trainable: {name: ShapeDtypeStruct with sharding}.
            optimizer: optimiser state of ShapeDtypeStruct with sharding.
            iterator: a fresh iterator over the same dataset; its state is set in place.

        Returns:
            step, trainable, optimizer state.

        Raises:
            PizaError: the checkpoint is of another configuration or cannot be read.
        """
        step = self.latest
        if step is None:
            raise PizaError(f"{self.workdir / CHECKPOINTS} holds no checkpoint")
        targets = {"trainable": trainable, "optimizer": {"step": 0, "state": optimizer}, "data": iterator}
        loaded = _load_step(self.workdir, step, targets)
        return int(loaded["optimizer"]["step"]), loaded["trainable"], loaded["optimizer"]["state"]

    def restore_frozen(self, frozen: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Load the frozen parameters onto the shardings of {name: ShapeDtypeStruct}."""
        return _load_frozen(self.workdir, frozen)

    def wait(self) -> None:
        """Wait for the save in progress; PizaError if it failed."""
        with self._reporting():
            self._checkpointer.wait()
        self._pending = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self.wait()
            self._checkpointer.close()
        except PizaError:
            if kind is None:  # otherwise the error on its way says more
                raise

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            step, self._pending = self._pending, None
            last = self.latest
            good = f"the last good checkpoint is step {last}" if last is not None else "there is no older checkpoint"
            raise PizaError(
                f"the checkpoint of step {step} could not be written to {self.workdir / CHECKPOINTS} "
                f"({_first_line(error)}); {good}; make room there and start again with the same workdir to go on"
            ) from error


def latest_step(workdir: str | os.PathLike[str]) -> int | None:
    """Step of the last complete checkpoint in workdir, None where there is none."""
    folder = Path(workdir) / CHECKPOINTS
    steps = [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()] if folder.is_dir() else []
    return max(steps, default=None)


def is_workdir(path: str | os.PathLike[str]) -> bool:
    """Whether a training run wrote to this folder."""
    folder = Path(path)
    return (folder / CHECKPOINTS).is_dir() or ((folder / CONFIG).is_file() and "peft" in read_config(folder))


def prepare_workdir(workdir: str | os.PathLike[str], config: ConfigDict) -> list[str]:
    """Write config.json, or hold the one that is there against config when the folder already has a checkpoint.

    Returns:
        The differences that a run may have between two starts (FREE_KEYS), as text.

    Raises:
        PizaError: the checkpoint there belongs to another configuration; each difference is named.
    """
    workdir = Path(workdir)
    notes = []
    if latest_step(workdir) is not None:
        changed = configs.differences(_settings(read_config(workdir)), _settings(config))
        said = {key: f"{key}: {old!r} there, {new!r} now" for key, (old, new) in changed.items()}
        fixed = [text for key, text in said.items() if not key.startswith(FREE_KEYS)]
        if fixed:
            raise PizaError(
                f"{workdir} holds a checkpoint of another configuration ({'; '.join(fixed)}); "
                "take these settings back, or give another --workdir"
            )
        notes = list(said.values())
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        temporary = workdir / (CONFIG + ".tmp")
        temporary.write_text(configs.to_json(config), encoding="utf-8")
        os.replace(temporary, workdir / CONFIG)
    except OSError as error:
        raise PizaError(f"cannot write {workdir / CONFIG}: {error}") from error
    return notes


def _settings(config: ConfigDict) -> dict[str, Any]:
    """Flat settings; those that came after a run was started have their defaults."""
    values = {"freeze": (), **config.to_dict()}
    values["zoom"] = {**defaults_of_training(), **values.get("zoom", {})}
    if "data" in values:
        values["data"] = {"scaled_decode": False, "expressions_a_photo": 1, **values["data"]}
    if "model" in values:
        values["model"] = config_from_dict(values["model"]).to_dict()
    return configs.flatten(values)


def read_config(workdir: str | os.PathLike[str]) -> ConfigDict:
    """The configuration of a workdir; PizaError when it is absent or broken."""
    path = Path(workdir) / CONFIG
    try:
        return configs.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PizaError(f"{workdir} is no folder of a trained model: it has no {CONFIG}") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PizaError(f"cannot read {path}: {error}") from error


def load_model(workdir: str | os.PathLike[str]) -> tuple[PizaDetector, dict[str, Any]]:
    """Rebuild the detector of a trained workdir with its last checkpoint's weights, on the default device.

    Returns:
        The model and the configuration as a plain dict.

    Raises:
        PizaError: no configuration or checkpoint there, a checkpoint that cannot be read or that belongs to another
            configuration.
    """
    config = read_config(workdir)
    step = latest_step(workdir)
    if step is None:
        raise PizaError(f"{Path(workdir) / CHECKPOINTS} holds no checkpoint; train first, or wait for the first save")
    model_config = config_from_dict(config.model.to_dict())
    model = abstract_detector(model_config)
    graph, train_state, frozen_state = select.split(model, config.peft, config.get("freeze", ()))
    trainable, frozen = _on_default_device(train_state), _on_default_device(frozen_state)
    trainable = _load_step(Path(workdir).resolve(), step, {"trainable": trainable})["trainable"]
    frozen = _load_frozen(Path(workdir).resolve(), frozen)
    states = unflatten_state(train_state, trainable), unflatten_state(frozen_state, frozen)
    return nnx.merge(graph, *states, copy=True), config.to_dict()


def look_at_model(workdir: str | os.PathLike[str]) -> tuple[PizaDetector, ConfigDict, list[Path]]:
    """What load_model would load, without reading an array.

    Returns:
        The abstract detector, the configuration, and the files that hold its weights.

    Raises:
        PizaError: as load_model, but for damage inside the files.
    """
    config, step, workdir = read_config(workdir), latest_step(workdir), Path(workdir).resolve()
    if step is None:
        raise PizaError(f"{workdir / CHECKPOINTS} holds no checkpoint; train first, or wait for the first save")
    model = abstract_detector(config_from_dict(config.model.to_dict()))
    _, train_state, frozen_state = select.split(model, config.peft, config.get("freeze", ()))
    _check_step(workdir, step, flatten_state(train_state))
    frozen = flatten_state(frozen_state)
    if frozen:
        _check_frozen(workdir, frozen)
    folders = [workdir / CHECKPOINTS / str(step) / "trainable", *([workdir / FROZEN] if frozen else [])]
    return model, config, sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def _on_default_device(state: nnx.State) -> dict[str, Any]:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        for name, leaf in flatten_state(state).items()
    }


def _load_step(workdir: Path, step: int, targets: dict[str, Any]) -> dict[str, Any]:
    path = _check_step(workdir, step, targets["trainable"])
    with _reading(path, f"delete {path} to fall back on the checkpoint before it"):
        return ocp.load_checkpointables(path, targets)


def _check_step(workdir: Path, step: int, trainable: Mapping[str, Any]) -> Path:
    """The folder of a step, whose parameters are those wanted by name and shape."""
    path = workdir / CHECKPOINTS / str(step)
    with _reading(path, f"delete {path} to fall back on the checkpoint before it"):
        stored = _stored(ocp.metadata(path, checkpointable_name="trainable"))
    check_same(trainable, stored, str(path))
    return path


def _load_frozen(workdir: Path, targets: Mapping[str, Any]) -> dict[str, jax.Array]:
    if not targets:
        return {}
    path = _check_frozen(workdir, targets)
    with _reading(path, _FROZEN_CURE):
        return ocp.load(path, dict(targets))


def _check_frozen(workdir: Path, frozen: Mapping[str, Any]) -> Path:
    path = workdir / FROZEN
    with _reading(path, _FROZEN_CURE):
        stored = _stored(ocp.metadata(path))
    check_same(frozen, stored, str(path))
    return path


def _stored(metadata: Any) -> Mapping[str, Any]:
    if metadata.metadata is None:  # orbax's answer for a file that it cannot read
        raise ValueError("its files are damaged")
    return metadata.metadata


@contextlib.contextmanager
def _reading(path: Path, cure: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise PizaError(f"cannot read the checkpoint {path} ({_first_line(error)}); {cure}") from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
