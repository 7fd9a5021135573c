"""What a sentence mentions counts in query selection alone; what a zoom box is zoomed to decides what is positive."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from piza_jax.models.grounding_dino import Cells, Detections
from piza_jax.ops.boxes import at_least
from piza_jax.training.losses import LossConfig, detection_losses

TARGET, ANCHOR = (0.3, 0.5, 0.1, 0.1), (0.7, 0.5, 0.3, 0.2)
CONFIG = LossConfig(class_cost=0.0, cell_weight=2.0)
losses_of = jax.jit(partial(detection_losses, config=CONFIG))


@pytest.fixture(scope="module")
def scene():
    """Detections of one picture, 6 queries and 5 tokens, with a query on the target and one on what is mentioned."""
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0.05, 0.2, (1, 6, 4)).astype(np.float32)
    boxes[0, 1], boxes[0, 4] = TARGET, ANCHOR
    logits = rng.normal(size=(3, 1, 6, 5)).astype(np.float32) - 2
    centres = np.array([[TARGET[:2], ANCHOR[:2], (0.1, 0.1)]], np.float32)
    cells = Cells(jnp.asarray(logits[2, :, :3]), jnp.asarray(centres), jnp.ones((1, 3), bool))
    found = Detections(
        jnp.asarray(logits[:2]), jnp.asarray([boxes, boxes]), jnp.asarray(logits[2]), jnp.asarray(boxes), cells=cells
    )
    targets = np.array([[TARGET, ANCHOR]], np.float32)
    positive, mentioned = np.zeros((1, 2, 5), np.float32), np.zeros((1, 2, 5), bool)
    positive[0, 0, 1:4], mentioned[0, 1, 2:4] = 1, True
    valid, tokens, size = np.array([[True, False]]), np.ones((1, 5), bool), np.array([[120, 160]])
    return found, (targets, valid, positive, tokens, size), mentioned


def test_mentions_leave_the_decoder_alone_and_reach_selection_and_cells(scene):
    found, arguments, mentioned = scene
    plain = losses_of(found, *arguments)
    with_mention = losses_of(found, *arguments, mentioned=mentioned)
    none = losses_of(found, *arguments, mentioned=np.zeros_like(mentioned))
    for name in plain:
        assert plain[name] == none[name], name
        changed = name in ("enc_loss_cls", "cell_loss_cls")  # boxes are all where they should be
        assert (plain[name] != with_mention[name]) == changed, name


def test_selection_learns_what_is_mentioned_by_its_tokens_alone(scene):
    found, arguments, mentioned = scene

    def total(selected, cells):
        moved = found._replace(selected_logits=selected, cells=found.cells._replace(logits=cells))
        return sum(losses_of(moved, *arguments, mentioned=mentioned).values())

    selected, cells = jax.grad(total, (0, 1))(found.selected_logits, found.cells.logits)
    for gradient, target, anchor in ((selected, 1, 4), (cells, 0, 1)):
        falls = np.asarray(gradient[0]) < 0
        assert falls[target].tolist() == [False, True, True, True, False]
        assert falls[anchor].tolist() == [False, False, True, True, False]
        others = np.delete(np.arange(len(falls)), (target, anchor))
        assert not falls[others].any()


def test_a_mention_is_matched_and_its_box_counts_as_much_as_a_target(scene):
    found, arguments, mentioned = scene
    aside = found._replace(selected_boxes=found.selected_boxes.at[0, 4].add(jnp.array([0.0, 0.02, 0.0, 0.0])))
    near, far = (losses_of(one, *arguments, mentioned=mentioned)["enc_loss_bbox"] for one in (found, aside))
    np.testing.assert_allclose(near, 0, atol=1e-6)
    np.testing.assert_allclose(far, CONFIG.l1_weight * 0.02 / 2, rtol=1e-4)  # over two boxes


ZOOM, THING = (0.3, 0.5, 0.2, 0.2), (0.34, 0.5, 0.02, 0.02)


@pytest.fixture(scope="module")
def zoomed(scene):
    """The same with a query that fits the zoom box and one on the thing in it; the cells lie on both and beside."""
    found, (_, _, positive, tokens, size), _ = scene
    boxes = found.selected_boxes.at[0, 1].set(jnp.array([0.31, 0.55, 0.2, 0.2]))
    boxes = boxes.at[0, 4].set(jnp.array([0.345, 0.5, 0.03, 0.03]))
    centres = jnp.array([[ZOOM[:2], THING[:2], (0.1, 0.1)]])
    found = found._replace(
        boxes=jnp.stack([boxes, boxes]), selected_boxes=boxes, cells=found.cells._replace(centres=centres)
    )
    return found, (np.array([[ZOOM]], np.float32), np.ones((1, 1), bool), positive[:, :1], tokens, size)


def falling(zoomed, **options):
    """Which queries of the decoder and of selection, and which cells, are to score higher."""
    found, arguments = zoomed

    def total(logits, selected, cells):
        moved = found._replace(logits=logits, selected_logits=selected, cells=found.cells._replace(logits=cells))
        return sum(losses_of(moved, *arguments, **options).values())

    gradients = jax.grad(total, (0, 1, 2))(found.logits, found.selected_logits, found.cells.logits)
    return [np.flatnonzero((np.asarray(one) < 0).any(axis=-1).reshape(-1, one.shape[-2])[-1]) for one in gradients]


def test_what_is_zoomed_to_decides_which_queries_and_cells_are_positive(zoomed):
    aim = np.array([[THING]], np.float32)
    assert [list(one) for one in falling(zoomed)] == [[1], [1], [0, 1]]
    assert [list(one) for one in falling(zoomed, aim_cxcywh=aim)] == [[4], [4], [1]]


def test_boxes_learn_the_zoom_box_whatever_decides(zoomed):
    found, arguments = zoomed
    losses = losses_of(found, *arguments, aim_cxcywh=np.array([[THING]], np.float32))
    expected = CONFIG.l1_weight * (0.045 + 0.17 + 0.17)  # of query 4 to ZOOM
    for name in ("loss_bbox", "d0.loss_bbox", "enc_loss_bbox"):
        np.testing.assert_allclose(losses[name], expected, rtol=1e-5)


def test_a_query_that_has_grown_to_a_zoom_box_at_the_edge_is_still_the_one(zoomed):
    found, arguments = zoomed
    grown = found.selected_boxes.at[0, 2].set(jnp.array(ZOOM))  # its centre is not the thing's
    moved = found._replace(boxes=jnp.stack([grown, grown]), selected_boxes=grown)
    losses = losses_of(moved, *arguments, aim_cxcywh=np.array([[THING]], np.float32))
    np.testing.assert_allclose(losses["loss_bbox"], 0, atol=1e-6)


def test_a_thing_smaller_than_a_cell_is_seen_all_the_same():
    boxes = at_least(jnp.array([[0.5, 0.5, 0.001, 0.3]]), 8 / jnp.array([[160.0, 120.0]]))
    np.testing.assert_allclose(boxes, [[0.5, 0.5, 0.05, 0.3]], rtol=1e-6)
