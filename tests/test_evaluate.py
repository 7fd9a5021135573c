"""Records are read ahead of the device, in order, and no further than a batch."""

from types import SimpleNamespace

import pytest

from piza_jax.errors import PizaError
from piza_jax.evaluation.evaluate import predictions
from tests.small_source import SmallSource


class Counted(SmallSource):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


class Looks:
    """A grounder that answers with the size of the photo."""

    batch_size, max_tokens = 2, 8
    tokenizer = SimpleNamespace(encode=lambda text, most: None)

    def __init__(self):
        self.sizes = []

    def ground(self, photos, texts):
        self.sizes.append(len(photos))
        return [SimpleNamespace(box=(0.0, 0.0, *map(float, photo.shape[1::-1]))) for photo in photos]


def test_a_batch_is_read_ahead_and_no_more():
    records, grounder = Counted(11), Looks()
    looked = predictions(grounder, records)
    first = next(looked)
    assert first.grounding.box == (0, 0, 400, 300)
    assert len(records.read) <= 5  # this batch, the next one, and one that is handed over
    assert [one.index for one in (first, *looked)] == list(range(11))
    assert sorted(records.read) == list(range(11))
    assert grounder.sizes == [2] * 5 + [1]


def test_a_record_that_cannot_be_read_ends_it_at_its_place():
    records = Counted(9, (400, 300), {5: {"image": b"no image"}})
    looked = predictions(Looks(), records)
    assert [next(looked).index for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(PizaError, match=r"5\.png"):
        next(looked)
    assert len(records.read) < 9
