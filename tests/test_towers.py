"""The first stage from scratch, and the loss of all cells that both stages have."""

from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx

from piza_jax import PizaError
from piza_jax.models.grounding_dino import Cells
from piza_jax.models.params import flatten_state, unflatten_state
from piza_jax.training.config import load_config
from piza_jax.training.losses import LossConfig, cell_loss
from piza_jax.training.optim import OptimizerConfig, first_factor, make_optimizer, make_schedule
from piza_jax.training.step import TrainState, make_step
from piza_jax.training.task import build_task
from piza_jax.training.towers import TOWERS, compute_tower_losses
from tests import tiny_detector


def focal(logit, label):
    chance = 1 / (1 + np.exp(-logit))
    right = chance if label else 1 - chance
    return -(0.25 if label else 0.75) * (1 - right) ** 2 * np.log(right)


def test_a_cell_answers_for_the_smallest_target_around_it():
    rng = np.random.default_rng(0)
    centres = rng.uniform(size=(2, 30, 2)).astype(np.float32)
    boxes = np.array([[[0.5, 0.5, 0.9, 0.9], [0.4, 0.4, 0.3, 0.2], [0.5, 0.5, 1.0, 1.0]]] * 2, np.float32)
    valid = np.array([[True, True, False], [False, False, False]])  # the second picture has no target
    positive = rng.uniform(size=(2, 3, 5)) < 0.4
    tokens = np.arange(5) < 4
    logits = np.where(tokens, rng.normal(size=(2, 30, 5)), -np.inf).astype(np.float32)
    usable = rng.uniform(size=(2, 30)) < 0.8
    total, inside = 0.0, 0
    for n in np.flatnonzero(usable[0]):
        away = np.abs(centres[0, n] - boxes[0, :, :2]) < boxes[0, :, 2:] / 2
        around = [g for g in (1, 0) if away[g].all()]  # the second is the smaller
        inside += bool(around)
        for token in range(4):
            total += focal(logits[0, n, token], bool(around) and positive[0, around[0], token])
    assert 0 < inside < usable[0].sum()
    found = cell_loss(Cells(logits, centres, usable), boxes, valid, positive.astype(np.float32), np.array([tokens] * 2))
    np.testing.assert_allclose(found, total / inside, rtol=1e-5)


def caption_batch():
    batch = tiny_detector.batch(size=4)
    size, length = batch["input_ids"].shape
    rng = np.random.default_rng(2)
    batch["target_boxes"] = np.tile(np.array([0.5, 0.5, 0.6, 0.6], np.float32), (size, 2, 1))
    batch["target_valid"] = np.array([[True, False]] * size)
    batch["positive"] = rng.uniform(size=(size, 2, length)) < 0.5
    names = ("image", "valid_hw", "input_ids", "token_mask", "target_boxes", "target_valid", "positive")
    return {name: batch[name] for name in names}


def test_steps_on_the_towers_lower_their_loss_and_leave_all_else_bit_for_bit():
    graph, *states = tiny_detector.split(nnx.eval_shape(tiny_detector.make_model))
    start = tiny_detector.parameters()
    config = OptimizerConfig(
        learning_rate=1e-3, rate_factors=((TOWERS, 1.0), ("", 0.0)), eps=1e-12, schedule="constant"
    )
    optimizer = make_optimizer(config, make_schedule(config, 1, 10))
    loss = partial(compute_tower_losses, config=LossConfig(cell_weight=2.0))
    step = jax.jit(make_step((graph, *states), loss, optimizer))
    state, losses = TrainState(np.int32(0), start, optimizer.init(start)), []
    for _ in range(6):
        state, scalars = step(state, {}, caption_batch())
        losses.append(float(scalars["loss"]))
    assert losses[-1] < 0.9 * losses[0]
    moved = {name for name in start if not np.array_equal(start[name], state.trainable[name])}
    assert {name for name in moved if not first_factor(config.rate_factors, name)} == set()
    for part in ("backbone", "neck", "bert", "text_projection", "selection_class_head"):
        assert any(f"/{part}/" in name for name in moved)


def test_the_cells_of_a_detector_are_what_its_queries_are_selected_from():
    graph, state, rest = tiny_detector.split(nnx.eval_shape(tiny_detector.make_model))
    batch = caption_batch()

    @jax.jit
    def detect(values):
        model = nnx.merge(graph, unflatten_state(state, values), rest)
        text = model.encode_text(batch["input_ids"], batch["token_mask"])
        return model.detect(batch["image"].astype(np.float32) / 255, batch["valid_hw"], text, None, None)

    found = detect(tiny_detector.parameters())
    best = np.sort(np.asarray(found.cells.logits).max(-1), axis=1)[:, ::-1]
    np.testing.assert_array_equal(best[:, : found.selected_logits.shape[1]], found.selected_logits.max(-1))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["--config.train.stage=tower"], "none of detector, towers"),
        (["--config.train.stage=towers"], "give data.captions"),
    ],
)
def test_a_stage_that_cannot_be_is_named(overrides, says, tmp_path):
    with pytest.raises(PizaError, match=says):
        build_task(load_config("configs/scenes.py", overrides), tmp_path)


def test_initial_scales_are_those_of_the_configuration():
    config = load_config("configs/mini.py:peft=none,stage=towers")
    names = flatten_state(tiny_detector.split(nnx.eval_shape(tiny_detector.make_model))[1])
    quiet = [name for name in names if first_factor(config.train.initial_scales, name) != 1]
    assert sorted(name.split("/layers/0/")[1] for name in quiet) == [
        "image/attention/out/kernel",
        "image/ffn/layers/1/kernel",
        "text/attention/out/kernel",
        "text/ffn/layers/1/kernel",
    ]
