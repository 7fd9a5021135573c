"""Slices of photos: every pixel covered, sizes and overlaps as asked for, in SAHI's places and order."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from piza_jax.errors import PizaError
from piza_jax.evaluation.slices import grid, sliding, whole

sides = st.tuples(st.integers(1, 300), st.integers(1, 300))
windows = st.tuples(st.integers(8, 200), st.integers(8, 200))
overlaps = st.sampled_from([0.0, 0.1, 0.2, 0.29, 0.5, 0.8])


def cover_of(photo_wh, boxes):
    """How many boxes hold each pixel, int [H, W]."""
    count = np.zeros(photo_wh[::-1], int)
    for x0, y0, x1, y1 in boxes:
        assert 0 <= x0 < x1 <= photo_wh[0]
        assert 0 <= y0 < y1 <= photo_wh[1]
        count[y0:y1, x0:x1] += 1
    return count


def in_order(boxes):
    corners = [(int(y0), int(x0)) for x0, y0, _, _ in boxes]
    return corners == sorted(set(corners))


@given(sides, st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_a_grid_holds_every_pixel_once(photo_wh, rows, columns):
    boxes = grid(photo_wh, rows, columns)
    assert boxes.dtype == np.int32
    assert len(boxes) == min(rows, photo_wh[1]) * min(columns, photo_wh[0])
    assert (cover_of(photo_wh, boxes) == 1).all()
    assert np.ptp(boxes[:, 2:] - boxes[:, :2], axis=0).max() <= 1
    assert in_order(boxes)


def along(photo, window, overlap):
    """One side, in the words of the rule: go on by the window less the overlap; shift what would stick out inwards."""
    spans, start = [], 0
    while True:
        stop = start + window
        if stop >= photo:
            return [*spans, (max(photo - window, 0), photo)]
        spans.append((start, stop))
        start = stop - int(overlap * window)


@given(sides, windows, overlaps)
@example((300, 200), (100, 100), 0.2)
@example((100, 100), (100, 100), 0.2)
@example((101, 99), (100, 100), 0.2)
@settings(max_examples=80, deadline=None)
def test_sliding_windows_follow_the_rule(photo_wh, slice_wh, overlap):
    boxes = sliding(photo_wh, slice_wh, overlap)
    across, down = (along(*pair, overlap) for pair in zip(photo_wh, slice_wh, strict=True))
    assert boxes.tolist() == [[x0, y0, x1, y1] for y0, y1 in down for x0, x1 in across]


@given(sides, windows, overlaps)
@settings(max_examples=60, deadline=None)
def test_sliding_windows_cover_keep_their_size_and_overlap(photo_wh, slice_wh, overlap):
    boxes = sliding(photo_wh, slice_wh, overlap)
    assert boxes.dtype == np.int32
    assert cover_of(photo_wh, boxes).min() >= 1
    assert (boxes[:, 2:] - boxes[:, :2] == np.minimum(slice_wh, photo_wh)).all()
    assert in_order(boxes)
    for axis in (0, 1):
        spans = sorted({(int(box[axis]), int(box[axis + 2])) for box in boxes})
        shared = [stop - start for (_, stop), (start, _) in pairwise(spans)]
        assert all(one == int(overlap * slice_wh[axis]) for one in shared[:-1])
        assert all(one >= int(overlap * slice_wh[axis]) for one in shared[-1:])


def test_a_photo_of_soda_d_has_as_many_windows_as_sahi_says():
    boxes = sliding((4000, 3000), (1024, 1024), 0.2)
    assert len(boxes) == 5 * 4
    assert boxes[0].tolist() == [0, 0, 1024, 1024]
    assert boxes[1].tolist() == [820, 0, 1844, 1024]
    assert boxes[-1].tolist() == [2976, 1976, 4000, 3000]
    assert sliding((300, 200), (1024, 1024)).tolist() == [[0, 0, 300, 200]] == whole((300, 200)).tolist()


@pytest.mark.parametrize("photo_wh", [(4000, 3000), (1000, 700), (1024, 1024), (1025, 1023), (300, 2000)])
@pytest.mark.parametrize("slice_wh", [(1024, 1024), (512, 300), (100, 640)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.29, 0.5])
def test_slices_equal_those_of_the_sahi_package(photo_wh, slice_wh, overlap):
    slicing = pytest.importorskip("sahi.slicing", reason="the sahi package is not installed")
    theirs = slicing.get_slice_bboxes(
        image_height=photo_wh[1],
        image_width=photo_wh[0],
        slice_height=slice_wh[1],
        slice_width=slice_wh[0],
        overlap_height_ratio=overlap,
        overlap_width_ratio=overlap,
    )
    assert sliding(photo_wh, slice_wh, overlap).tolist() == [list(box) for box in theirs]


def test_senseless_slices_are_refused():
    with pytest.raises(PizaError, match="0 x 3 tiles"):
        grid((10, 10), 0, 3)
    with pytest.raises(PizaError, match="0 x 8 pixels sees nothing"):
        sliding((10, 10), (0, 8))
    with pytest.raises(PizaError, match="overlap of sliding windows is 1"):
        sliding((10, 10), (8, 8), 1.0)
    for cut in (whole, lambda photo_wh: grid(photo_wh, 2, 2), lambda photo_wh: sliding(photo_wh, (8, 8))):
        with pytest.raises(PizaError, match="a photo of 0 x 10 pixels"):
            cut((0, 10))
