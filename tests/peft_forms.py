"""The tiny detector with each fine-tuning method put on the same plain weights, and what compiles of it once."""

import dataclasses
import zlib
from functools import cache, cached_property

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from piza_jax.ops.images import normalise
from piza_jax.peft import select
from piza_jax.piza.detector import PizaConfig, PizaDetector, config_of_method
from piza_jax.piza.zoom import ZoomConfig, zoom
from piza_jax.training.objective import compute_losses
from piza_jax.training.params import flatten_state, unflatten_state
from tests import tiny_detector

ADAPTERS = ("adapter_plus", "coop", "lora", "vpt")
METHODS = tuple(f"{prefix}{adapter}" for adapter in ADAPTERS for prefix in ("", "piza_"))
PIZA_METHODS = METHODS[1::2]
BATCH = tiny_detector.batch(size=2)
ZOOM = ZoomConfig(canvas_hw=(64, 64), max_steps=3, stop_threshold=1.0)


def config(method: str) -> PizaConfig:
    """Of the paper's form, with small parts; three levels and one decoder layer compile faster."""
    detector = dataclasses.replace(tiny_detector.model_config().detector, levels=3)
    made = config_of_method(method, detector)
    return dataclasses.replace(
        made, adapter_dim=8, lora_rank=2, lora_alpha=4.0, context_tokens=3, condition_dim=16, visual_prompts=2
    )


def quick(function, *arguments):
    """Compiled for such arguments with few optimisations, which would take most of the time."""
    lowered = jax.jit(function).lower(*arguments)
    compiled = lowered.compile(compiler_options={"xla_backend_optimization_level": 0})
    return lambda *values: jax.device_get(compiled(*values))


def named_value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter that depends on its name alone, so that all forms share the plain detector's."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).astype(np.float32)
    if name.endswith("scale"):
        return 1 + np.float32(0.05) * noise
    return noise * np.float32(np.prod(shape[:-1]) ** -0.5 if name.endswith(("kernel", "lora_a", "lora_b")) else 0.1)


def abstract(method: str) -> PizaDetector:
    """The model's shapes."""
    return nnx.eval_shape(lambda: PizaDetector(config(method), rngs=nnx.Rngs(0)))


def outputs(model, text, progress, batch):
    """What a detector pass gives, in numbers that are finite."""
    images = normalise(batch["image"], batch["valid_hw"])
    found = model.detect(images, batch["valid_hw"], text, progress)
    return {
        "boxes": found.boxes,
        "scores": jax.nn.sigmoid(found.logits),
        "first": jax.nn.sigmoid(found.selected_logits),
    }


class Form:
    """One method on the tiny detector: ``start`` are its first parameters, ``moved`` are all far from them."""

    def __init__(self, method: str):
        self.method = method
        self.graph, self.state, *self.rest = nnx.split(abstract(method), nnx.Param, ...)
        shapes = {name: leaf.shape for name, leaf in flatten_state(self.state).items()}
        self.moved = {name: named_value(name, shape) for name, shape in shapes.items()}
        self.trained = [name for name in shapes if select.is_trainable(method, name)]

    def merge(self, values) -> PizaDetector:
        return nnx.merge(self.graph, unflatten_state(self.state, values), *self.rest, copy=True)

    @cached_property
    def start(self) -> dict[str, np.ndarray]:
        """The plain detector's parameters by name, the others as the method initialises them."""
        added = [name for name in self.moved if not select.is_base(name)]

        def initialise():
            state = nnx.state(PizaDetector(config(self.method), rngs=nnx.Rngs(0)), nnx.Param)
            return {name: value for name, value in flatten_state(state).items() if name in added}

        return {**self.moved, **quick(initialise)()}

    @cached_property
    def detect(self):
        """Compiled (parameters, progress [B]) -> outputs."""

        def run(values, progress):
            model = self.merge(values)
            return outputs(model, model.encode_text(BATCH["input_ids"], BATCH["token_mask"]), progress, BATCH)

        return quick(run, self.moved, BATCH["progress"])

    @cached_property
    def gradient(self):
        """Compiled parameters -> (loss, gradient of those that the method trains)."""

        def loss(trained, values):
            return compute_losses(self.merge({**values, **trained}), BATCH, jax.random.key(0))[0]

        def run(values):
            return jax.value_and_grad(loss)({name: values[name] for name in self.trained}, values)

        return quick(run, self.moved)

    @cached_property
    def zoom(self):
        """Compiled parameters -> the zoom of two drawn photos, the text encoded once in front of it."""
        photos = np.random.default_rng(5).integers(0, 256, (2, 150, 200, 3)).astype(np.uint8)
        photo_hw = jnp.array([[150, 200], [120, 90]], jnp.int32)

        def run(values):
            model = self.merge(values)
            text = model.encode_text(BATCH["input_ids"], BATCH["token_mask"])
            return zoom(model, photos, photo_hw, text, ZOOM)

        return quick(run, self.moved)


@cache
def form(method: str) -> Form:
    """The form of a method, made once for all tests."""
    return Form(method)
