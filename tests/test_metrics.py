"""Measures of groundings against plain NumPy, and how they add up, group and print."""

import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piza_jax.errors import PizaError
from piza_jax.evaluation.metrics import (
    ALL,
    COLUMNS,
    SIZE_EDGES_PX2,
    THRESHOLDS,
    GroundingMetrics,
    measure,
    merge,
    size_names,
    summarise,
    table,
)

EDGES = (900.0, 1200.0, 1600.0)
BATCH = 16
measure_jit = jax.jit(measure, static_argnames="edges_px2")
# Overlaps on and beside the thresholds, where a wrong comparison shows.
OVERLAPS = st.one_of(
    st.floats(0, 1, width=32),
    st.sampled_from([float(t) for t in THRESHOLDS]),
    st.sampled_from([float(np.nextafter(t, np.float32(0))) for t in THRESHOLDS]),
)


@st.composite
def batches(draw, least=1, most=4):
    number = draw(st.integers(least, most))
    iou = np.array(draw(st.lists(OVERLAPS, min_size=number * BATCH, max_size=number * BATCH)), np.float32)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps = rng.integers(1, 6, iou.shape).astype(np.int32)
    area = rng.choice([714.0, 899.0, 900.0, 1000.0, 1200.0, 1599.0, 1600.0, 2000.0], iou.shape).astype(np.float32)
    valid = rng.random(iou.shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    return iou, steps, area, valid


def naive(iou, steps, chosen):
    if not chosen.any():
        return None
    iou, steps = iou[chosen], steps[chosen]
    share = {t: float(np.mean(iou >= np.float32(t / 100))) for t in range(50, 100, 5)}
    return {
        "mAcc": float(np.mean(list(share.values()))),
        "Acc50": share[50],
        "Acc75": share[75],
        "mean_iou": float(np.mean(iou, dtype=np.float64)),
        "mean_steps": float(np.mean(steps)),
        "count": int(chosen.sum()),
    }


def assert_same(ours, expected):
    assert (ours is None) == (expected is None)
    if ours is not None:
        assert tuple(ours) == COLUMNS
        for name in COLUMNS:
            assert ours[name] == pytest.approx(expected[name], abs=2e-6), name


@settings(max_examples=60, deadline=None)
@given(batches())
def test_merged_batches_equal_numpy_over_all_samples_and_in_every_size_group(data):
    iou, steps, area, valid = data
    parts = [
        measure_jit(*(array[start : start + BATCH] for array in data), edges_px2=EDGES)
        for start in range(0, len(iou), BATCH)
    ]
    ours = summarise({"val": merge(parts)})["val"]
    group = np.sum(area[:, None] >= np.array(EDGES), axis=1)
    assert list(ours) == [ALL, "< 900 px2", "900..1200 px2", "1200..1600 px2", ">= 1600 px2"]
    assert_same(ours[ALL], naive(iou, steps, valid))
    for index, name in enumerate(size_names(EDGES)):
        assert_same(ours[name], naive(iou, steps, valid & (group == index)))


@settings(max_examples=20, deadline=None)
@given(batches(3, 3))
def test_batches_one_by_one_equal_one_large_batch(data):
    iou, steps, _, valid = data
    whole = GroundingMetrics.single_from_model_output(iou=iou, steps=steps, valid=valid).compute()
    merged = GroundingMetrics.empty()
    for rows in (slice(0, 5), slice(5, 6), slice(6, None)):
        part = GroundingMetrics.single_from_model_output(iou=iou[rows], steps=steps[rows], valid=valid[rows])
        merged = merged.merge(part)
    for name, value in merged.compute().items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-6, err_msg=name)


def test_padding_counts_nowhere_even_if_it_is_not_a_number():
    iou = np.array([0.8, np.nan, 0.6, 1.0], np.float32)
    groups = measure(iou, np.array([2, 9, 4, 9]), np.full(4, 800.0), np.array([True, False, True, False]))
    numbers = summarise({"val": groups})["val"][ALL]
    # 0.8 reaches 7 of the 10 thresholds and 0.6 three of them.
    expected = {"mAcc": 0.5, "Acc50": 1.0, "Acc75": 0.5, "mean_iou": 0.7, "mean_steps": 3.0, "count": 2}
    assert numbers == pytest.approx(expected)


def test_macc_is_the_mean_over_ten_thresholds_and_equality_counts():
    for index, threshold in enumerate(THRESHOLDS):
        group = GroundingMetrics.single_from_model_output(
            iou=np.array([threshold]), steps=np.array([1]), valid=np.array([True])
        )
        assert float(group.compute()["mAcc"]) == pytest.approx((index + 1) / 10)
    assert len(THRESHOLDS) == 10
    assert float(THRESHOLDS[-1]) == pytest.approx(0.95)


def test_empty_groups_are_absent_and_the_summary_is_json():
    big = np.full(3, 1800.0)
    splits = {
        "val": measure(np.array([0.9, 0.4, 0.76], np.float32), np.array([2, 3, 2]), big, np.ones(3, bool)),
        "testA": measure(np.zeros(2, np.float32), np.ones(2, int), big[:2], np.zeros(2, bool)),
    }
    summary = summarise(splits)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["val"]["< 1000 px2"] is None
    assert summary["val"][">= 1500 px2"] == summary["val"][ALL]
    assert set(summary["testA"].values()) == {None}


def test_table_is_aligned_and_in_percent():
    iou = np.array([0.9, 0.4, 0.76, 0.62], np.float32)
    area = np.array([720.0, 800.0, 1900.0, 2000.0])
    text = table(summarise({"val": measure(iou, np.array([2, 3, 2, 2]), area, np.ones(4, bool))}))
    assert text.splitlines() == [
        "split  targets         mAcc %  Acc50 %  Acc75 %  IoU %  steps  count",
        "--------------------------------------------------------------------",
        "val    all               45.0     75.0     50.0   67.0   2.25      4",
        "val    < 1000 px2        45.0     50.0     50.0   65.0   2.50      2",
        "val    1000..1500 px2       -        -        -      -      -      0",
        "val    >= 1500 px2       45.0    100.0     50.0   69.0   2.00      2",
    ]


def test_default_sizes_split_sorecs_targets_into_parts_worth_reading(shared_dir):
    records = json.loads((shared_dir / "sorec" / "testA.json").read_text(encoding="utf-8"))
    area = np.array([record["bbox"][2] * record["bbox"][3] for record in records])
    parts = np.bincount(np.searchsorted(SIZE_EDGES_PX2, area, side="right"), minlength=3) / len(area)
    assert len(parts) == 3
    assert parts.min() > 0.15


def test_mistakes_are_named():
    good = np.array([0.5, 0.5], np.float32)
    with pytest.raises(PizaError, match=r"\[900, 900\] .* increase"):
        size_names([900, 900])
    with pytest.raises(PizaError, match="above 0"):
        size_names([0, 900])
    with pytest.raises(PizaError, match=r"\[2\], \[2, 1\]"):
        measure(good, good[:, None], good, np.ones(2, bool))
    with pytest.raises(PizaError, match="valid float32"):
        measure(good, good, good, good)
    with pytest.raises(PizaError, match="no batch"):
        merge([])
    one = measure(good, good, good, np.ones(2, bool))
    with pytest.raises(PizaError, match="same edges"):
        merge([one, measure(good, good, good, np.ones(2, bool), EDGES)])


def test_without_edges_there_is_one_group():
    assert list(measure(np.ones(1), np.ones(1), np.ones(1), np.ones(1, bool), ())) == [ALL]
