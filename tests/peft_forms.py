"""Each fine-tuning method of configs/piza_sorec.py on the same tiny plain detector, and what compiles of it once."""

import zlib
from functools import cache, cached_property
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from piza_jax.models.keys import make_keys
from piza_jax.models.params import flatten_state, unflatten_state
from piza_jax.ops.images import normalise
from piza_jax.peft import select
from piza_jax.piza.detector import PizaConfig, PizaDetector, config_from_dict
from piza_jax.piza.zoom import ZoomConfig, zoom
from piza_jax.training.config import load_config
from tests import tiny_detector

ROOT = Path(__file__).resolve().parents[1]
ADAPTERS = ("adapter_plus", "coop", "lora", "vpt")
METHODS = tuple(f"{prefix}{adapter}" for adapter in ADAPTERS for prefix in ("", "piza_"))
BATCH = tiny_detector.batch(size=2)
# The smallest detector that has every part; fewer levels compile faster.
SMALL = (
    "model.detector.swin.depths=(1,1,1,1)",
    "model.detector.bert.layers=1",
    "model.detector.bert.vocab_size=256",
    "model.detector.encoder_layers=1",
    "model.detector.decoder_layers=1",
    "model.detector.levels=3",
    "model.detector.queries=20",
    "model.detector.denoising_queries=4",
    "model.adapter_dim=8",
    "model.lora_rank=2",
    "model.context_tokens=3",
    "model.condition_dim=16",
    "model.visual_prompts=2",
    "data.canvas_hw=(64,64)",
    "data.num_photos=1",
    "data.photo_wh=(320,240)",
)


def run_config(method: str, *overrides: str):
    """The smoke form of the method's configuration, smaller still."""
    return load_config(str(ROOT / "configs" / f"piza_sorec.py:peft={method},smoke"), (*SMALL, *overrides))


def model_config(method: str) -> PizaConfig:
    return config_from_dict(run_config(method).model.to_dict())


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


class Form:
    """One method: ``start`` are its first parameters on the plain detector's, ``moved`` are all far from their first.

    Attributes:
        names: of all parameters.
        moved: {name: array}.
    """

    def __init__(self, method: str):
        self.method, self.config = method, model_config(method)
        self.abstract = nnx.eval_shape(lambda: PizaDetector(self.config, rngs=make_keys(0)))
        self.graph, self.state, *self.rest = nnx.split(self.abstract, nnx.Param, ...)
        shapes = {name: leaf.shape for name, leaf in flatten_state(self.state).items()}
        self.names = set(shapes)
        self.moved = {name: named_value(name, shape) for name, shape in shapes.items()}

    def merge(self, values) -> PizaDetector:
        """The model with these parameters."""
        return nnx.merge(self.graph, unflatten_state(self.state, values), *self.rest, copy=True)

    @cached_property
    def start(self) -> dict[str, np.ndarray]:
        if not self.config.history:  # the method starts alike, with PIZA or without
            return {name: form(f"piza_{self.method}").start[name] for name in self.names}
        plain = form("full")

        def initialise():
            model = PizaDetector(self.config, rngs=nnx.Rngs(0), detector=plain.merge(plain.moved).detector)
            state = flatten_state(nnx.state(model, nnx.Param))
            return {name: value for name, value in state.items() if not select.is_base(name)}

        return {**self.moved, **quick(initialise)()}

    @cached_property
    def detect(self):
        """Compiled (parameters, progress) -> what a detector pass gives, in finite numbers."""

        def run(values, progress):
            model = self.merge(values)
            text = model.encode_text(BATCH["input_ids"], BATCH["token_mask"])
            images = normalise(BATCH["image"], BATCH["valid_hw"])
            found = model.detect(images, BATCH["valid_hw"], text, jax.numpy.full((2,), progress))
            best = found.selected_logits.max(axis=-1)  # of each selected cell, best first
            return {"boxes": found.boxes, "scores": jax.nn.sigmoid(found.logits), "best": best, "words": text.hidden}

        return quick(run, self.moved, np.float32(0.5))

    @cached_property
    def zoom(self):
        """Compiled parameters -> the zoom into two photos, for which the text is encoded once."""
        photos = np.random.default_rng(5).integers(0, 256, (2, 150, 200, 3)).astype(np.uint8)
        photo_hw = jax.numpy.array([[150, 200], [120, 90]], jax.numpy.int32)
        config = ZoomConfig(canvas_hw=(64, 64), max_steps=3, stop_threshold=1.0)

        def run(values):
            model = self.merge(values)
            text = model.encode_text(BATCH["input_ids"], BATCH["token_mask"])
            return zoom(model, photos, photo_hw, text, config)

        return quick(run, self.moved)


@cache
def form(method: str) -> Form:
    """The form of a method, made once for all tests."""
    return Form(method)
