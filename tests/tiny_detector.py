"""The real detector with every part, as small as it gets, and a batch for it."""

import dataclasses

import jax
import numpy as np
from flax import nnx

from piza_jax.models.config import DetectorConfig
from piza_jax.models.params import flatten_state
from piza_jax.peft import select
from piza_jax.piza.detector import PizaConfig, PizaDetector


def model_config(**changes):
    preset = DetectorConfig.preset("tiny")
    detector = dataclasses.replace(
        preset,
        swin=dataclasses.replace(preset.swin, depths=(1, 1, 1, 1)),
        bert=dataclasses.replace(preset.bert, layers=1, vocab_size=64),
        encoder_layers=1,
        decoder_layers=1,
        queries=20,
        denoising_queries=4,
        **changes,
    )
    return PizaConfig(detector=detector, adapter_dim=8)


def make_model():
    return PizaDetector(model_config(), rngs=nnx.Rngs(0))


def split(model):
    return select.split(model, "full")


def parameters():
    """All parameters as NumPy arrays, moved off their initial values, many of which are zero."""

    def initialise():
        return flatten_state(split(make_model())[1])

    # Half of the time would go into optimising a program that runs once.
    compiled = jax.jit(initialise).lower().compile(compiler_options={"xla_backend_optimization_level": 0})
    rng = np.random.default_rng(0)
    values = jax.device_get(compiled())
    return {name: value + 0.02 * rng.normal(size=value.shape).astype(np.float32) for name, value in values.items()}


def batch(size=8, canvas=64, tokens=12, steps=4):
    """A batch as the pipeline makes it, of noise; one sample is a stop sample."""
    rng = np.random.default_rng(1)
    count = rng.integers(5, tokens + 1, size)
    token_mask = np.arange(tokens) < count[:, None]
    depth = rng.integers(1, steps, size)
    history_mask = np.arange(steps) < depth[:, None]
    scale = 2.0 ** -np.arange(steps, dtype=np.float32)[:, None]
    history = np.concatenate([100 - 100 * scale, 80 - 80 * scale, 100 + 540 * scale, 80 + 400 * scale], 1)
    has_target = np.arange(size) != 3
    boxes = np.concatenate([rng.uniform(0.3, 0.7, (size, 2)), rng.uniform(0.1, 0.4, (size, 2))], 1)
    return {
        "image": rng.integers(0, 256, (size, canvas, canvas, 3)).astype(np.uint8),
        "valid_hw": rng.integers(canvas // 2, canvas + 1, (size, 2)).astype(np.int32),
        "input_ids": np.where(token_mask, rng.integers(5, 64, (size, tokens)), 0).astype(np.int32),
        "token_mask": token_mask,
        "target_box": (boxes * has_target[:, None]).astype(np.float32),
        "has_target": has_target,
        "history": (history[None] * history_mask[..., None]).astype(np.float32),
        "history_mask": history_mask,
        "progress": rng.uniform(size=size).astype(np.float32),
        "stop": (~has_target).astype(np.float32),
        "id": np.arange(size, dtype=np.int32),
    }
