"""A tiny regression task for the trainer's tests; `python -m tests.tiny_task WORKDIR` runs it in its own process."""

import argparse
import os
import resource
import signal
import sys
import time

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from piza_jax.data.pipeline import Batches
from piza_jax.errors import PizaError
from piza_jax.training.loop import fit
from piza_jax.training.program import Task


class TinyModel(nnx.Module):
    """Two trainable layers on a frozen one; wide enough that fsdp splits them and that a save takes some bytes."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.backbone = nnx.Linear(8, width, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(width, width, rngs=rngs)])
        self.head = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.layers[0](nnx.relu(self.backbone(x)))))[..., 0]


def split(model):
    return nnx.split(model, nnx.All(nnx.Param, nnx.Not(nnx.PathContains("backbone"))), ...)


def loss(model, batch, key):
    noise = 0.01 * jax.random.normal(key, batch["x"].shape)
    error = model(batch["x"] + noise) - batch["y"]
    return jnp.mean(error**2), {"absolute_error": jnp.mean(jnp.abs(error))}


def make_dataset(batch_size, slow=0.0, poison=None, workers=0):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(40, 8)).astype(np.float32)
    targets = inputs.sum(1)

    def sample(index, random):
        time.sleep(slow)
        y = np.float32(np.nan) if index == poison else targets[index]
        return {"x": inputs[index] + 0.1 * random.normal(size=8).astype(np.float32), "y": y}

    dataset = grain.MapDataset.range(40).seed(5).shuffle().repeat().random_map(sample)
    reading = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    if not workers:
        return dataset.to_iter_dataset(reading).batch(batch_size)
    return Batches(lambda first: dataset.batch(batch_size)[first:], 1000, {}, num_workers=workers, read_ahead=2)


def make_config(**overrides):
    config = ConfigDict(
        {
            "seed": 3,
            "peft": "tiny",
            "train": {"batch_size": 8, "num_epochs": 4.0, "num_steps": 0, "log_every": 1},
            "optimizer": {"learning_rate": 1e-2, "clip_norm": 1.0, "decay_epochs": (3.0,)},
            "mesh": {"data": -1, "fsdp": 1, "min_shard_size": 64},
            "checkpoint": {"every": 3, "keep": 2},
            "evaluation": {"every": 0},
        }
    )
    config.update_from_flattened_dict(overrides)
    return config


def make_task(config, width=16, **options):
    return Task(
        make_model=lambda: TinyModel(width, nnx.Rngs(config.seed)),
        split=split,
        loss=options.pop("loss", loss),
        dataset=make_dataset(
            config.train.batch_size, options.pop("slow", 0.0), options.pop("poison", None), options.pop("workers", 0)
        ),
        steps_per_epoch=40 / config.train.batch_size,
        **options,
    )


def kill_at_commit(step):
    """End this process with SIGKILL when the finished checkpoint of that step is about to get its final name."""
    rename = os.rename

    def guarded(source, target, **arguments):
        if os.fspath(target).endswith(f"{os.sep}checkpoints{os.sep}{step}"):
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(source, target, **arguments)

    os.rename = guarded


def main(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--kill-at-commit", type=int)
    parser.add_argument("--file-limit", type=int)
    options = parser.parse_args(arguments)
    config = make_config(**{"train.num_steps": options.steps})
    task = make_task(config, options.width, slow=options.slow, workers=options.workers)
    if options.kill_at_commit is not None:
        kill_at_commit(options.kill_at_commit)
    if options.file_limit is not None:
        # No file of this process can grow past the limit: to a save that is what a full disk is.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (options.file_limit, resource.RLIM_INFINITY))
    try:
        result = fit(task, config, options.workdir)
    except PizaError as error:
        print(f"PizaError: {error}", file=sys.stderr)
        return 1
    print(f"done step={result.step} interrupted={result.interrupted}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
