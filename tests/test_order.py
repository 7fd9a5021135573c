"""The order of training: each record once an epoch, in groups that share a photo, whatever makes the batches."""

import json
from collections import Counter

import numpy as np
import pytest

from piza_jax import PizaError
from piza_jax.data import photo_cache
from piza_jax.data.blind import BlindSource
from piza_jax.data.mini_source import MiniPictures, MiniSource
from piza_jax.data.order import PhotoOrder, make_order, source_index
from piza_jax.data.pipeline import train_batches
from piza_jax.data.records import Record, RecordSource
from piza_jax.data.samples import SampleConfig
from piza_jax.data.tokenize import Tokenizer
from piza_jax.training.task import SceneSource
from tests.small_source import TEXTS, record
from tests.test_pipeline import assert_same, take

CONFIG = SampleConfig(canvas_hw=(64, 64), max_tokens=16)
PHOTOS = np.repeat(np.arange(6), [7, 1, 4, 3, 9, 2])  # of 26 records


class SharedSource:
    """Several records on each photo, listed in any order."""

    def __init__(self):
        self.photo_index = np.random.default_rng(0).permutation(PHOTOS)
        self._photos = [record(number) for number in range(6)]

    def __len__(self):
        return len(self.photo_index)

    def __getitem__(self, index):
        return {**self._photos[self.photo_index[index]], "id": index}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, 120)


def batches(tokenizer, expressions_a_photo=4, **options):
    options = {"batch_size": 8, "seed": 0, **options}
    return train_batches(SharedSource(), tokenizer, CONFIG, expressions_a_photo=expressions_a_photo, **options)


@pytest.mark.parametrize("size", [1, 2, 4, 100])
@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_every_epoch_holds_each_record_once_in_another_order(size, seed):
    order = make_order(SharedSource(), seed, size)
    epochs = [tuple(order(position) for position in range(start, start + 26)) for start in range(0, 104, 26)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(26))
    assert len(set(epochs)) == 4


@pytest.mark.parametrize("size", [2, 3, 4, 100])
def test_records_of_a_photo_follow_each_other_in_groups(size):
    source, held = SharedSource(), Counter(PHOTOS.tolist())
    order = PhotoOrder(source.photo_index, size, 3)
    for epoch in range(5):
        photos = [int(source.photo_index[order(26 * epoch + place)]) for place in range(26)]
        place, groups = 0, Counter()
        while place < 26:
            photo = photos[place]
            # Groups of one photo may come in any order, the one of what is left over too; two may also be neighbours.
            run = next((n for n, other in enumerate(photos[place:]) if other != photo), 26 - place)
            assert run % size == 0 or run % size == held[photo] % size
            groups[photo] += run
            place += run
        assert groups == held


def test_groups_are_other_ones_in_other_epochs_and_spread_over_the_epoch():
    photo_index = np.repeat(np.arange(200), 8)
    order = PhotoOrder(photo_index, 4, 0)
    first, second = (
        [frozenset(order(1600 * epoch + 4 * group + n) for n in range(4)) for group in range(400)] for epoch in (0, 1)
    )
    assert len(set(first) & set(second)) < 40  # by chance a thirty-fifth of them, about 11
    places = {}
    for place, group in enumerate(first):
        places.setdefault(int(photo_index[min(group)]), []).append(place)
    gaps = [abs(one - other) for one, other in places.values()]
    assert np.mean(gaps) == pytest.approx(400 / 3, rel=0.25)


def test_one_expression_a_photo_is_the_plain_shuffle(tokenizer):
    order = make_order(SharedSource(), 5)
    assert [order(position) for position in range(60)] == [source_index(position, 26, 5) for position in range(60)]
    plain = train_batches(SharedSource(), tokenizer, CONFIG, batch_size=8, seed=0)
    assert iter(batches(tokenizer, 1)).get_state() == iter(plain).get_state()
    assert iter(plain).get_state() == {"next_batch": 0, "num_records": 26, "batch_size": 8, "seed": 0}


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_out_each_batch(tokenizer, process_count):
    whole = take(batches(tokenizer), 5)
    parts = [
        take(batches(tokenizer, process_index=index, process_count=process_count), 5) for index in range(process_count)
    ]
    for number, batch in enumerate(whole):
        assert_same(batch, {name: np.concatenate([part[number][name] for part in parts]) for name in batch})


def test_workers_do_not_change_the_batches(tokenizer):
    for one, other in zip(take(batches(tokenizer), 4), take(batches(tokenizer, num_workers=1), 4), strict=True):
        assert_same(one, other)


def test_samples_of_a_group_have_chance_of_their_own(tokenizer):
    zooms = np.concatenate([batch["history"][:, 1] for batch in take(batches(tokenizer, 8), 6)])
    zooms = zooms[zooms.any(axis=1)]
    assert len(np.unique(zooms, axis=0)) == len(zooms) > 20


def test_restored_state_gives_the_batches_that_would_have_come(tokenizer):
    expected = take(batches(tokenizer), 6)  # over the end of an epoch
    iterator = iter(batches(tokenizer))
    for _ in range(3):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    iterator.close()
    halves = [iter(batches(tokenizer, process_index=index, process_count=2)) for index in range(2)]
    for half in halves:
        half.set_state(state)
    for batch in expected[3:]:
        parts = [next(half) for half in halves]
        assert_same(batch, {name: np.concatenate([part[name] for part in parts]) for name in batch})


@pytest.mark.parametrize(("there", "here"), [(1, 4), (4, 1), (4, 2)])
def test_state_of_another_grouping_is_an_error(tokenizer, there, here):
    state = iter(batches(tokenizer, there)).get_state()
    with pytest.raises(PizaError, match="expressions_a_photo"):
        iter(batches(tokenizer, here)).set_state(state)


def test_a_group_decodes_its_photo_once(tokenizer, monkeypatch):
    decoded = []

    def count(data, name, factor=1, rows=None):
        decoded.append(name)
        return opened(data, name, factor, rows)

    opened = photo_cache.open_part
    monkeypatch.setattr(photo_cache, "open_part", count)
    monkeypatch.setattr("piza_jax.data.samples.PHOTOS", photo_cache.PhotoCache(4 * 400 * 300 * 3 // 2))  # one photo
    for size, most in ((1, 26), (4, 9)):  # in groups of four there are nine
        decoded.clear()
        batches(tokenizer, size, batch_size=26).make(0)[0]  # the first batch, and none ahead of it
        assert len(decoded) <= most
        assert (len(decoded) > 15) == (size == 1)


def test_sources_know_their_photos(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(record(number)["image"])
    records = [Record(n, f"{photo}.png", "a car", (1.0, 1.0, 9.0, 9.0)) for n, photo in enumerate((1, 0, 1, 1))]
    scenes = SceneSource(2, 0, (320, 240), 3)
    mini = MiniSource("train_s", 2)
    for source in (RecordSource(records, tmp_path), scenes, mini, BlindSource(scenes, "expression")):
        names = [source[index]["name"] for index in range(len(source))]
        photos = np.asarray(source.photo_index)
        for one, name in zip(photos, names, strict=True):
            assert [names[index] for index in np.flatnonzero(photos == one)] == [name] * names.count(name)


def test_what_cannot_be_grouped_is_an_error(tokenizer):
    with pytest.raises(PizaError, match="MiniPictures does not say which photo"):
        make_order(MiniPictures("train", 2), 0, 2)
    with pytest.raises(PizaError, match="expressions_a_photo is 0"):
        batches(tokenizer, 0)
