"""The pipeline: batches are a function of seed and position, whatever makes them, and errors name their record."""

import asyncio
import json
import os
import sys

import grain
import numpy as np
import pytest
from etils import epath
from orbax.checkpoint import v1 as ocp

from piza_jax import PizaError
from piza_jax.data.order import source_index
from piza_jax.data.pipeline import eval_batches, train_batches
from piza_jax.data.samples import SampleConfig
from piza_jax.data.tokenize import Tokenizer
from tests.small_source import TEXTS, SmallSource, record

CONFIG = SampleConfig(canvas_hw=(64, 64), max_tokens=16)
TUNABLES = "GLIBC_TUNABLES"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, 120)


def take(batches, count):
    iterator = iter(batches)
    taken = [next(iterator) for _ in range(count)]
    iterator.close()
    return taken


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def train(tokenizer, num_records=10, config=CONFIG, changes=None, **options):
    return train_batches(SmallSource(num_records, changes=changes), tokenizer, config, **{"seed": 0, **options})


# Training batches


def test_batch_has_the_static_shapes_of_its_fields(tokenizer):
    (batch,) = take(train(tokenizer, batch_size=4), 1)
    shapes = {name: (value.shape, value.dtype.name) for name, value in batch.items()}
    assert shapes == {
        "image": ((4, 64, 64, 3), "uint8"),
        "valid_hw": ((4, 2), "int32"),
        "input_ids": ((4, 16), "int32"),
        "token_mask": ((4, 16), "bool"),
        "target_box": ((4, 4), "float32"),
        "final_box": ((4, 4), "float32"),
        "has_target": ((4,), "bool"),
        "history": ((4, 6, 4), "float32"),
        "history_mask": ((4, 6), "bool"),
        "progress": ((4,), "float32"),
        "stop": ((4,), "float32"),
        "id": ((4,), "int32"),
    }


@pytest.mark.parametrize("num_records", [1, 2, 7, 10])
def test_every_epoch_holds_each_record_once_in_another_order(num_records):
    epochs = [[source_index(epoch * num_records + i, num_records, 5) for i in range(num_records)] for epoch in range(6)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(num_records))
    if num_records > 2:
        assert len({tuple(epoch) for epoch in epochs}) > 1


def test_batches_run_on_over_the_end_of_an_epoch(tokenizer):
    ids = np.concatenate([batch["id"] for batch in take(train(tokenizer, num_records=6, batch_size=4), 6)])
    for epoch in ids.reshape(4, 6):
        assert sorted(epoch) == list(range(100, 106))


def test_seed_decides_order_and_chance(tokenizer):
    first, again = (take(train(tokenizer, batch_size=10, seed=3), 2) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert_same(one, other)
    (second,) = take(train(tokenizer, batch_size=10, seed=4), 1)
    assert (second["id"] != first[0]["id"]).any()
    assert (np.sort(first[0]["progress"]) != np.sort(second["progress"])).any()


def test_same_record_gets_other_crops_in_other_epochs(tokenizer):
    batches = take(train(tokenizer, num_records=1, batch_size=1), 12)
    zooms = {tuple(batch["history"][0, 1]) for batch in batches if batch["history_mask"][0].sum() > 1}
    assert len(zooms) == sum(batch["history_mask"][0].sum() > 1 for batch in batches) > 3


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_do_not_change_the_batches(tokenizer, num_workers):
    alone = take(train(tokenizer, batch_size=4), 5)
    shared = take(train(tokenizer, batch_size=4, num_workers=num_workers), 5)
    for one, other in zip(alone, shared, strict=True):
        assert_same(one, other)


class Told(SmallSource):
    """The id of each record says whether the process that reads it was told to keep its memory."""

    def __getitem__(self, index: int) -> dict:
        return {**super().__getitem__(index), "id": int("glibc.malloc.arena_max=1" in os.environ.get(TUNABLES, ""))}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it is glibc's memory")
def test_workers_keep_their_memory_and_this_process_stays_as_it_is(tokenizer, monkeypatch):
    for name in (name for name in tuple(os.environ) if name == TUNABLES or name.startswith("MALLOC_")):
        monkeypatch.delenv(name)
    for num_workers in (0, 1, 2):
        taken = take(train_batches(Told(4), tokenizer, CONFIG, seed=0, batch_size=2, num_workers=num_workers), 4)
        assert {int(number) for batch in taken for number in batch["id"]} == {int(num_workers > 0)}
        assert TUNABLES not in os.environ
    monkeypatch.setenv(TUNABLES, "glibc.malloc.arena_max=4")
    (batch,) = take(train_batches(Told(4), tokenizer, CONFIG, seed=0, batch_size=2, num_workers=1), 1)
    assert not any(batch["id"])


@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_processes_share_out_each_batch(tokenizer, process_count):
    whole = take(train(tokenizer, batch_size=8), 3)
    parts = [
        take(train(tokenizer, batch_size=8, process_index=i, process_count=process_count), 3)
        for i in range(process_count)
    ]
    for number, batch in enumerate(whole):
        assert parts[0][number]["id"].shape == (8 // process_count,)
        for name in batch:
            np.testing.assert_array_equal(batch[name], np.concatenate([part[number][name] for part in parts]))


@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 2), (1, 0)])
def test_restored_state_gives_the_batches_that_would_have_come(tokenizer, before, after):
    expected = take(train(tokenizer, batch_size=4), 6)
    iterator = iter(train(tokenizer, batch_size=4, num_workers=before))
    for _ in range(3):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    next(iterator)  # what comes after the save does not change it
    iterator.close()
    resumed = iter(train(tokenizer, batch_size=4, num_workers=after))
    if not after:
        next(resumed)  # an iterator that has begun can be set all the same
    resumed.set_state(state)
    assert resumed.get_state() == state
    for batch in expected[3:]:
        assert_same(next(resumed), batch)
    resumed.close()


def test_orbax_saves_and_restores_the_iterator(tokenizer, tmp_path):
    expected = take(train(tokenizer, batch_size=4), 4)
    iterator = iter(train(tokenizer, batch_size=4))
    assert isinstance(iterator, grain.DatasetIterator)
    next(iterator), next(iterator)
    ocp.save_checkpointables(tmp_path / "step", {"data": iterator})
    resumed = iter(train(tokenizer, batch_size=4))
    ocp.load_checkpointables(tmp_path / "step", {"data": resumed})
    for batch in expected[2:]:
        assert_same(next(resumed), batch)


def test_state_saved_by_other_processes_serves_too(tokenizer, tmp_path):
    iterator = iter(train(tokenizer, batch_size=4, process_index=1, process_count=2))
    next(iterator)
    (tmp_path / "process_1-of-2.json").write_text(json.dumps(iterator.get_state()))
    resumed = iter(train(tokenizer, batch_size=4))

    async def load():
        await (await resumed.load(epath.Path(tmp_path)))

    asyncio.run(load())
    assert_same(next(resumed), take(train(tokenizer, batch_size=4), 2)[1])


@pytest.mark.parametrize("other", [{"seed": 1}, {"batch_size": 2}, {"num_records": 9}])
def test_state_of_other_data_is_an_error(tokenizer, other):
    state = iter(train(tokenizer, batch_size=4)).get_state()
    stranger = iter(train(tokenizer, **{"batch_size": 4, **other}))
    with pytest.raises(PizaError, match=next(iter(other))):
        stranger.set_state(state)


# Bad input

BAD = {
    "zero size": ({"box_xyxy": np.array([10, 10, 10, 30], np.float32)}, "no area"),
    "outside": ({"box_xyxy": np.array([390, 10, 420, 30], np.float32)}, "leaves its photo of 400 x 300"),
    "truncated": ({"image": record(0)["image"][:200]}, "damaged or cut short"),
    "no image": ({"image": b"<html>not found</html>"}, "not a JPEG"),
    "empty expression": ({"expression": "  "}, "empty"),
    "long expression": ({"expression": "red car " * 20}, "has 43 tokens"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("form", ["train", "eval"])
def test_bad_record_is_an_error_that_names_it(tokenizer, kind, form):
    change, message = BAD[kind]
    source = SmallSource(4, changes={2: change})
    if form == "train":
        batches = train_batches(source, tokenizer, CONFIG, batch_size=4, seed=0)
    else:
        batches = eval_batches(source, tokenizer, batch_size=4, max_tokens=16)
    with pytest.raises(PizaError, match=rf"record 102 \(2\.png\): .*{message}"):
        take(batches, 1)


def test_error_in_a_worker_names_the_record_too(tokenizer):
    changes = {2: {"image": b"broken"}}
    with pytest.raises(PizaError, match=r"record 102 \(2\.png\)"):
        take(train(tokenizer, num_records=4, batch_size=4, changes=changes, num_workers=1), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_records": 0, "batch_size": 4}, "no records"),
        ({"batch_size": 5, "process_count": 2}, "does not divide among 2 processes"),
        ({"batch_size": 4, "process_index": 2, "process_count": 2}, "process_index is 2"),
        ({"batch_size": 4, "seed": -1}, "seed is -1"),
        ({"batch_size": 4, "num_workers": -1}, "num_workers is -1"),
    ],
)
def test_impossible_option_is_an_error_at_once(tokenizer, options, message):
    with pytest.raises(PizaError, match=message):
        train(tokenizer, **options)


# Evaluation batches


@pytest.mark.parametrize("num_workers", [0, 1])
def test_evaluation_sees_each_record_once_in_order_with_its_whole_photo(tokenizer, num_workers):
    source = SmallSource(5)
    batches = list(eval_batches(source, tokenizer, batch_size=2, max_tokens=16, num_workers=num_workers))
    assert [batch["photo"].shape for batch in batches] == [(2, 512, 512, 3)] * 3
    ids = np.concatenate([batch["id"] for batch in batches])
    valid = np.concatenate([batch["valid"] for batch in batches])
    np.testing.assert_array_equal(ids, [100, 101, 102, 103, 104, 104])
    np.testing.assert_array_equal(valid, [True] * 5 + [False])
    for row, photo, photo_hw, box in zip(
        range(5),
        np.concatenate([batch["photo"] for batch in batches]),
        np.concatenate([batch["photo_hw"] for batch in batches]),
        np.concatenate([batch["box_xyxy"] for batch in batches]),
        strict=False,
    ):
        np.testing.assert_array_equal(photo_hw, [300, 400])
        np.testing.assert_array_equal(box, source[row]["box_xyxy"])
        x0, y0, x1, y1 = box.astype(int)
        assert (photo[y0:y1, x0:x1] == photo[y0, x0]).all()
        assert (photo[y0, x0] != [40, 40, 60]).any()
        assert not photo[300:].any()
        assert not photo[:, 400:].any()


def test_evaluation_pads_to_the_size_given(tokenizer):
    (batch,) = eval_batches(SmallSource(2), tokenizer, batch_size=2, max_tokens=16, photo_hw=(300, 410))
    assert batch["photo"].shape == (2, 300, 410, 3)
    with pytest.raises(PizaError, match="record 100 is 400 x 300 pixels"):
        list(eval_batches(SmallSource(2), tokenizer, batch_size=2, max_tokens=16, photo_hw=(300, 390)))


def test_evaluation_processes_get_equally_many_batches(tokenizer):
    options = {"batch_size": 4, "max_tokens": 16, "photo_hw": (300, 400), "process_count": 2}
    parts = [list(eval_batches(SmallSource(5), tokenizer, process_index=i, **options)) for i in range(2)]
    assert [len(part) for part in parts] == [2, 2]
    seen = [int(i) for part in parts for batch in part for i in batch["id"][batch["valid"]]]
    assert sorted(seen) == list(range(100, 105))
    with pytest.raises(PizaError, match="photo_hw"):
        eval_batches(SmallSource(5), tokenizer, batch_size=4, max_tokens=16, process_count=2)
