"""Every measure in every group against plain NumPy, one row after the other, whatever the batches and devices."""

import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piza_jax.errors import PizaError
from piza_jax.evaluation import groups
from piza_jax.evaluation.details import DETAILS, Outcomes
from piza_jax.evaluation.geometry import centre_distances, overlaps
from piza_jax.evaluation.metrics import ALL

SCORES = st.sampled_from(["all", "some", "none"])


def naive_iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / both


def make(seed, count, scored="some", ranked=True, valid_share=0.8):
    """Random boxes as plain rows of a dict, beside the outcomes that describe them."""
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 4000, (count, 2)), rng.uniform(15, 60, (count, 2))
    targets = np.concatenate([corner, corner + size], axis=1)
    moved = corner + size * rng.normal(0, 0.3, (count, 10, 2)).transpose(1, 0, 2)
    boxes = np.concatenate([moved, moved + size * rng.uniform(0.7, 1.4, (10, count, 2))], axis=2)  # [10, N, 4]
    score = rng.random(count).astype(np.float32)
    score[rng.random(count) < {"all": 0, "some": 0.3, "none": 1.1}[scored]] = np.nan
    stops = rng.integers(0, 5, count)
    columns = {
        "words": rng.choice([1, 14, 15, 16, 25, 26, 35, 36, 80], count),
        "steps": rng.integers(0, 8, count),
        "score": score,
        "stops": stops,
        "right_stops": rng.integers(0, stops + 1),
        "valid": rng.random(count) < valid_share,
    }
    centre_px, centre_widths = centre_distances(boxes[0], targets)
    found = overlaps(boxes, targets).T.astype(np.float32)
    outcomes = Outcomes(
        iou=found[:, 0],
        centre_px=centre_px.astype(np.float32),
        centre_widths=centre_widths.astype(np.float32),
        area_px2=size.prod(axis=1).astype(np.float32),
        ranked_iou=found,
        ranked=np.full(count, ranked),
        **columns,
    )
    return boxes, targets, outcomes


def naive(boxes, targets, outcomes, rows, ranked):
    """All measures of chosen rows, one row after the other."""
    rows = [row for row in rows if outcomes.valid[row]]
    if not rows:
        return None
    iou = {row: [np.float32(naive_iou(box[row], targets[row])) for box in boxes] for row in rows}
    first = [iou[row][0] for row in rows]

    def share(percents):
        return float(np.mean([[one >= np.float32(p / 100) for one in first] for p in percents]))

    def top(k):
        return float(np.mean([max(iou[row][:k]) >= 0.5 for row in rows])) if ranked else None

    apart = [[sum(boxes[0][row][i::2]) / 2 - sum(targets[row][i::2]) / 2 for i in (0, 1)] for row in rows]
    distance = [float(np.linalg.norm(one)) for one in apart]
    zooms = [outcomes.steps[row] for row in rows if outcomes.steps[row]]
    decisions = sum(int(outcomes.stops[row]) for row in rows)
    scored = [row for row in rows if not np.isnan(outcomes.score[row])]
    error = 0.0
    for number in range(10):
        low, high = np.float32(number / 10), np.float32((number + 1) / 10)
        inside = [
            row for row in scored if low <= outcomes.score[row] < high or (number == 9 and outcomes.score[row] == 1)
        ]
        if inside:
            confidence = np.mean([np.float64(outcomes.score[row]) for row in inside])
            error += len(inside) / len(scored) * abs(np.mean([iou[row][0] >= 0.5 for row in inside]) - confidence)
    return {
        "mAcc": share(range(50, 100, 5)),
        "Acc50": share([50]),
        "Acc75": share([75]),
        "wide_mAcc": share(range(5, 100, 5)),
        "top1": top(1),
        "top5": top(5),
        "top10": top(10),
        "mean_iou": float(np.mean(first, dtype=np.float64)),
        "centre_px": float(np.mean(distance)),
        "centre_widths": float(
            np.mean([d / (targets[r][2] - targets[r][0]) for d, r in zip(distance, rows, strict=True)])
        ),
        "mean_steps": float(np.mean(zooms)) if zooms else None,
        "stop_accuracy": sum(int(outcomes.right_stops[r]) for r in rows) / decisions if decisions else None,
        "calibration_error": float(error) if scored else None,
        "count": len(rows),
    }


def assert_same(ours, expected):
    assert (ours is None) == (expected is None)
    if expected is not None:
        assert tuple(ours) == DETAILS == tuple(expected)
        for name, value in expected.items():
            assert ours[name] == (value if value is None else pytest.approx(value, abs=1e-6, rel=1e-6)), name


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), SCORES, st.booleans(), st.sampled_from([0.0, 0.8, 1.0]))
def test_every_measure_in_every_group_equals_plain_numpy(seed, count, scored, ranked, valid_share):
    boxes, targets, outcomes = make(seed, count, scored, ranked, valid_share)
    ours = groups.summarise_details(groups.measure_in_batches(outcomes, batch_size=16))
    everything = range(count)
    area, words, steps = outcomes.area_px2, outcomes.words, outcomes.steps
    expected = {
        ALL: {ALL: everything},
        "target size": {
            "< 1000 px2": [r for r in everything if area[r] < 1000],
            "1000..1500 px2": [r for r in everything if 1000 <= area[r] < 1500],
            ">= 1500 px2": [r for r in everything if area[r] >= 1500],
        },
        "expression length": {
            "<= 15 words": [r for r in everything if words[r] <= 15],
            "16..25 words": [r for r in everything if 16 <= words[r] <= 25],
            "26..35 words": [r for r in everything if 26 <= words[r] <= 35],
            "> 35 words": [r for r in everything if words[r] > 35],
        },
        "zoom steps": {f"{n} step{'s' * (n > 1)}": [r for r in everything if steps[r] == n] for n in (1, 2, 3, 4)}
        | {">= 5 steps": [r for r in everything if steps[r] >= 5]},
    }
    assert {way: list(named) for way, named in ours.items()} == {way: list(named) for way, named in expected.items()}
    for way, named in expected.items():
        for name, rows in named.items():
            assert_same(ours[way][name], naive(boxes, targets, outcomes, rows, ranked))


def flat(groups_measured):
    return json.loads(json.dumps(groups.summarise_details(groups_measured), allow_nan=False))


def assert_identical(one, other):
    for way, named in one.items():
        for name, values in named.items():
            assert (values is None) == (other[way][name] is None), (way, name)
            for key, value in (values or {}).items():
                assert other[way][name][key] == pytest.approx(value, rel=5e-7), (way, name, key)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 300, 1024])
def test_batch_size_does_not_matter(batch_size):
    outcomes = make(3, 301)[2]
    whole = flat(groups.measure_in_batches(outcomes, batch_size=301))
    assert_identical(whole, flat(groups.measure_in_batches(outcomes, batch_size=batch_size)))


def test_eight_devices_measure_what_one_does():
    outcomes = make(4, 301)[2]
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    batch = jax.device_put(Outcomes(*(array[:64] for array in outcomes)), spread)
    assert len(jax.jit(groups.measure_details)(batch)[ALL][ALL].count.total.sharding.device_set) == 8
    measured = groups.measure_in_batches(outcomes, batch_size=64, sharding=spread)
    assert_identical(flat(groups.measure_in_batches(outcomes, batch_size=64)), flat(measured))


def test_padding_counts_nowhere_even_if_it_is_not_a_number():
    outcomes = make(5, 12, valid_share=1.0)[2]
    good = flat(groups.measure_details(Outcomes(*(array[:9] for array in outcomes))))
    damaged = [array.copy() for array in outcomes]
    for array in damaged:
        if array.dtype == np.float32:
            array[9:] = np.nan
    damaged[-1][9:] = False
    assert_identical(good, flat(groups.measure_details(Outcomes(*damaged))))


def test_calibration_of_scores_on_the_edges_of_bins():
    outcomes = make(6, 4, "all", valid_share=1.0)[2]
    # 0.1 and 0.15 share a bin (one right of two), 1.0 is in the last one (right), 0.0 in the first (wrong).
    outcomes = outcomes._replace(
        score=np.array([0.1, 0.15, 1.0, 0.0], np.float32), iou=np.array([0.5, 0.49, 0.9, 0.0], np.float32)
    )
    numbers = flat(groups.measure_details(outcomes))[ALL][ALL]
    assert numbers["calibration_error"] == pytest.approx((1 - 0.25) / 4)


def test_groups_are_configurable_and_mistakes_are_named():
    outcomes = make(7, 40, valid_share=1.0)[2]
    ours = flat(groups.measure_in_batches(outcomes, groups.Edges((500.0,), (20,), 1)))
    assert list(ours["target size"]) == ["< 500 px2", ">= 500 px2"]
    assert list(ours["expression length"]) == ["<= 20 words", "> 20 words"]
    assert ours["zoom steps"][">= 1 step"]["count"] == np.count_nonzero(outcomes.steps)
    with pytest.raises(PizaError, match=r"word edges \[20, 20\]"):
        groups.Edges(words=(20, 20))
    with pytest.raises(PizaError, match="most_steps is 0"):
        groups.Edges(most_steps=0)
    with pytest.raises(PizaError, match=r"words \[39\]"):
        groups.measure_details(outcomes._replace(words=outcomes.words[:39]))
    with pytest.raises(PizaError, match="valid int32"):
        groups.measure_details(outcomes._replace(valid=outcomes.valid.astype(np.int32)))
    with pytest.raises(PizaError, match="different edges"):
        groups.merge_details(
            groups.measure_details(outcomes), groups.measure_details(outcomes, groups.Edges(words=(9,)))
        )
    with pytest.raises(PizaError, match="0 samples"):
        groups.measure_in_batches(Outcomes(*(array[:0] for array in outcomes)))
