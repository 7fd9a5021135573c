"""Training compiles one step for its canvas, whatever the sizes of the photos."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from piza_jax.data.pipeline import train_batches
from piza_jax.data.samples import SampleConfig
from piza_jax.data.search import SearchConfig
from piza_jax.data.tokenize import Tokenizer
from piza_jax.training.loop import fit
from piza_jax.training.program import Task
from tests import compilations, tiny_task

SIZES = [(320, 200), (200, 320), (640, 480), (333, 777), (1024, 90), (512, 512), (901, 600)]
CANVAS = (32, 48)


class MixedPhotos:
    """Records whose photos are all of different sizes."""

    def __init__(self):
        self.records = []
        rng = np.random.default_rng(0)
        for number, (width, height) in enumerate(SIZES):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(buffer, "PNG")
            box = np.array([10.0, 20.0, 30.0, 44.0], np.float32)
            words = " ".join(["the small square"] * (number + 1))
            record = {"image": buffer.getvalue(), "name": f"{number}.png", "id": number, "expression": words}
            self.records.append({**record, "box_xyxy": box})

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        return self.records[index]


class Colour(nnx.Module):
    """As little as a model can be that reads a whole view."""

    def __init__(self, rngs):
        self.head = nnx.Linear(3, 1, rngs=rngs)

    def __call__(self, batch):
        count = jnp.maximum(jnp.sum(batch["token_mask"], axis=1), 1)
        return self.head(jnp.mean(batch["image"] / 255.0, axis=(1, 2)))[:, 0] / count


def loss(model, batch, key):
    del key
    return jnp.mean((model(batch) - batch["progress"]) ** 2), {}


@pytest.mark.slow
def test_two_hundred_steps_over_mixed_photos_compile_no_more_than_one_step(tmp_path):
    source = MixedPhotos()
    tokenizer = Tokenizer.train([record["expression"] for record in source.records], 64)
    config = SampleConfig(canvas_hw=CANVAS, max_tokens=40, search=SearchConfig())
    shapes = set()

    class Watched:
        def __iter__(self):
            inner = iter(train_batches(source, tokenizer, config, batch_size=8, seed=0))
            return WatchedIterator(inner)

    class WatchedIterator:
        def __init__(self, inner):
            self.inner = inner

        def __next__(self):
            batch = next(self.inner)
            shapes.add(tuple((name, value.shape, str(value.dtype)) for name, value in batch.items()))
            return batch

        def __getattr__(self, name):
            return getattr(self.inner, name)

    def train(steps):
        settings = tiny_task.make_config(**{"train.num_steps": steps, "checkpoint.every": 1000, "train.log_every": 50})
        settings.optimizer.rate_factors = ()
        made = Task(
            make_model=lambda: Colour(nnx.Rngs(0)),
            split=lambda model: nnx.split(model, nnx.Param, ...),
            loss=loss,
            dataset=Watched(),
            steps_per_epoch=1.0,
        )
        assert fit(made, settings, tmp_path / str(steps)).step == steps

    first = compilations.during(lambda: train(1))
    assert first > 0
    assert compilations.during(lambda: train(200)) <= first
    assert len(shapes) == 1  # one canvas
