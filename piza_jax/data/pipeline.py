"""From a random-access source of records to batches, with grain.

Everything is a function of a position in an endless stream of examples: the record at position g is that of a seeded
shuffle of epoch g // N (data/order.py), its chance comes from (seed, g), and batch n holds positions
n * B .. n * B + B - 1. So batches are the same whatever the number of workers, and the state of an iterator is the
number of its next batch, which also serves another number of processes.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import grain
import numpy as np
from absl import flags

from piza_jax.data.captions import CaptionConfig, random_caption
from piza_jax.data.order import make_order
from piza_jax.data.photo_cache import PHOTOS
from piza_jax.data.samples import SampleConfig, naming, random_sample
from piza_jax.data.search import check_box
from piza_jax.data.tokenize import Tokenizer
from piza_jax.errors import PizaError
from piza_jax.malloc import kept_by_children

Batch = dict[str, np.ndarray]
_ENDLESS = 2**60
_SHAPE_STEP = 512  # photos of an evaluation batch are padded to multiples of this, so that few shapes occur


class Source(Protocol):
    """Records by index: {"image": bytes, "name": str, "id": int, "expression": str, "box_xyxy": float32 [4] px}."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


class Batches(grain.IterDataset):
    """Batches by number; its iterators are checkpointable and start, or start again, at any batch."""

    def __init__(
        self,
        make: Callable[[int], grain.MapDataset],
        num_batches: int,
        identity: Mapping[str, int],
        num_workers: int,
        read_ahead: int,
    ):
        """Wrap make(first batch) -> dataset of batches; identity tells one stream from another in saved states."""
        super().__init__()
        self.make, self.num_batches, self.identity = make, num_batches, dict(identity)
        self.num_workers, self.read_ahead = num_workers, read_ahead

    def __iter__(self) -> "BatchIterator":
        """A fresh iterator, at batch 0."""
        return BatchIterator(self)

    def start_at(self, batch: int) -> grain.DatasetIterator:
        """An iterator of grain's own from a batch on."""
        # Batches are large: grain's default of 500 in memory would not fit.
        reading = grain.ReadOptions(num_threads=self.read_ahead, prefetch_buffer_size=self.read_ahead)
        dataset = self.make(batch).to_iter_dataset(reading)
        if self.num_workers:
            if not flags.FLAGS.is_parsed():  # grain's workers read its flags, which only an absl program parses
                flags.FLAGS.mark_as_parsed()
            options = grain.MultiprocessingOptions(self.num_workers, per_worker_buffer_size=1)
            dataset = dataset.mp_prefetch(options)
        return iter(dataset)


class BatchIterator(grain.DatasetIterator):
    """Iterates over batches; its state is the number of the next one and what the stream is made of."""

    def __init__(self, batches: Batches):
        super().__init__()
        self._batches, self._next_batch = batches, 0
        self._inner: grain.DatasetIterator | None = None

    def __next__(self) -> Batch:
        if self._closed:
            raise ValueError("the iterator is closed")
        if self._next_batch >= self._batches.num_batches:
            raise StopIteration
        with self._starting():  # grain starts a worker when it is asked for its first batch
            batch = next(self._started())
        self._next_batch += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """JSON-able; the same in every process and for every number of workers."""
        return {"next_batch": self._next_batch, **self._batches.identity}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go to the batch of a state; PizaError if the state is of another stream."""
        here, there = self._batches.identity, {name: state[name] for name in state if name != "next_batch"}
        names = sorted(name for name in here | there if here.get(name) != there.get(name))
        other = [f"{name} {there.get(name)} there, {here.get(name)} here" for name in names]
        if other:
            raise PizaError(f"the saved data state belongs to other data ({', '.join(other)}); restore these settings")
        self._stop()
        self._next_batch = int(state["next_batch"])

    async def load(self, directory: Any) -> Awaitable[None]:
        """Read the state that save wrote; any process's file serves, since all hold the same."""
        return self._load(directory)

    async def _load(self, directory: Any) -> None:
        files = sorted(await asyncio.to_thread(lambda: list(directory.glob("process_*.json"))))
        if not files:
            raise ValueError(f"there is no data state in {directory}")
        self.set_state(json.loads(await asyncio.to_thread(files[0].read_text)))

    def start_prefetch(self) -> None:
        """Begin to make batches before the first is asked for."""
        with self._starting():
            self._started().start_prefetch()

    def close(self) -> None:
        """Stop the workers; the iterator cannot be used again."""
        self._closed = True
        self._stop()

    def _starting(self) -> contextlib.AbstractContextManager[None]:
        return kept_by_children() if self._batches.num_workers else contextlib.nullcontext()

    def _started(self) -> grain.DatasetIterator:
        if self._inner is None:
            self._inner = self._batches.start_at(self._next_batch)
        return self._inner

    def _stop(self) -> None:
        inner, self._inner = getattr(self, "_inner", None), None
        if inner is not None:
            inner.close()


def train_batches(
    source: Source,
    tokenizer: Tokenizer,
    config: SampleConfig | CaptionConfig,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    read_ahead: int = 2,
    expressions_a_photo: int = 1,
) -> Batches:
    """Endless batches of training samples, one sample a record and epoch; an epoch ends inside a batch where it must.

    Args:
        source: the records; it is pickled where there are workers.
        tokenizer: makes the token ids.
        config: how records become samples, one zoom step of an expression or a caption of several.
        batch_size: examples in a batch over all processes, B.
        seed: decides order, jitter and steps; 0..2**32 - 1.
        process_index: this process; it gets the examples process_index * b .. of each batch, b = B / process_count.
        process_count: number of processes.
        num_workers: processes that make batches beside this one; 0 makes them in threads of this process.
        read_ahead: threads, and batches made ahead, in each process that makes batches.
        expressions_a_photo: so many records of one photo follow each other (fewer where a photo has no more), each with
            chance of its own, so that their photo is decoded once. It saves the most where it divides b.

    Returns:
        Dataset of dicts of arrays [b, ...] with the fields of samples.random_sample or captions.random_caption.

    Raises:
        PizaError: at once: no records, a batch that does not divide by process_count, or several expressions a photo
            of a source that does not know its photos (order.make_order); while iterating: see samples.random_sample
            and captions.random_caption.
    """
    local = _check_share(len(source), batch_size, process_index, process_count, num_workers)
    if not 0 <= seed < 2**32:
        raise PizaError(f"the seed is {seed}; it must be in 0..{2**32 - 1}")
    example = _TrainExample(source, tokenizer, config, seed, expressions_a_photo)

    def make(first_batch: int) -> grain.MapDataset:
        positions = process_positions(first_batch, batch_size, process_index, process_count)
        return grain.MapDataset.range(_ENDLESS).map(positions).map(example).batch(local)

    identity = {"num_records": len(source), "batch_size": batch_size, "seed": seed}
    if expressions_a_photo > 1:
        identity["expressions_a_photo"] = expressions_a_photo
    return Batches(make, _ENDLESS, identity, num_workers, read_ahead)


def eval_batches(
    source: Source,
    tokenizer: Tokenizer,
    *,
    batch_size: int,
    max_tokens: int,
    photo_hw: tuple[int, int] | None = None,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    read_ahead: int = 1,
) -> Batches:
    """Every record once, in order, with its whole photo.

    The last batch is filled up to batch_size with copies of the last record, marked by valid False; every process gets
    the same number of batches.

    Args:
        photo_hw: static height and width to which photos are padded (with zeros, content top left). None pads to the
            largest photo of the batch, rounded up to a multiple of 512; with several processes it must be given.
        source, tokenizer, batch_size, process_index, process_count, num_workers, read_ahead: as train_batches.
        max_tokens: length L of the token ids.

    Returns:
        Dataset of dicts: photo uint8 [b, PH, PW, 3], photo_hw int32 [b, 2], input_ids int32 [b, L], token_mask bool
        [b, L], box_xyxy float32 [b, 4] photo pixels, id int32 [b], valid bool [b].

    Raises:
        PizaError: as train_batches; while iterating also a photo larger than photo_hw.
    """
    local = _check_share(len(source), batch_size, process_index, process_count, num_workers)
    if photo_hw is None and process_count > 1:
        raise PizaError("several processes need batches of one shape: give photo_hw, the size of the largest photo")
    num_batches = -(-len(source) // batch_size)
    example = _EvalExample(source, tokenizer, max_tokens)

    def make(first_batch: int) -> grain.MapDataset:
        positions = process_positions(first_batch, batch_size, process_index, process_count)
        examples = grain.MapDataset.range((num_batches - first_batch) * local).map(positions).map(example)
        return examples.batch(local, batch_fn=_PadPhotos(photo_hw))

    return Batches(make, num_batches, {"num_records": len(source), "batch_size": batch_size}, num_workers, read_ahead)


class _TrainExample:
    def __init__(
        self,
        source: Source,
        tokenizer: Tokenizer,
        config: SampleConfig | CaptionConfig,
        seed: int,
        expressions_a_photo: int,
    ):
        self.source, self.tokenizer, self.config, self.seed = source, tokenizer, config, seed
        self.order, self.shared = make_order(source, seed, expressions_a_photo), expressions_a_photo > 1

    def __call__(self, position: int) -> dict[str, Any]:
        record = self.source[self.order(position)]
        rng = np.random.default_rng([self.seed, position])
        if isinstance(self.config, CaptionConfig):
            return random_caption(record, self.tokenizer, self.config, rng)
        return random_sample(record, self.tokenizer, self.config, rng, shared=self.shared)


class _EvalExample:
    def __init__(self, source: Source, tokenizer: Tokenizer, max_tokens: int):
        self.source, self.tokenizer, self.max_tokens = source, tokenizer, max_tokens

    def __call__(self, position: int) -> dict[str, Any]:
        record = self.source[min(position, len(self.source) - 1)]
        with naming(record):
            photo = PHOTOS.get(record["image"], record["name"]).image
            input_ids, token_mask = self.tokenizer.encode(record["expression"], self.max_tokens)
            box = check_box(record["box_xyxy"], photo.size)
        return {
            "photo": np.asarray(photo),
            "photo_hw": np.array([photo.height, photo.width], np.int32),
            "input_ids": input_ids,
            "token_mask": token_mask,
            "box_xyxy": box.astype(np.float32),
            "id": np.int32(record["id"]),
            "valid": np.bool_(position < len(self.source)),
        }


class _PadPhotos:
    """Stacks examples, their photos padded to one shape."""

    def __init__(self, photo_hw: tuple[int, int] | None):
        self.photo_hw = photo_hw

    def __call__(self, examples: Sequence[dict[str, Any]]) -> Batch:
        largest = np.max([example["photo_hw"] for example in examples], axis=0)
        shape = self.photo_hw or tuple(int(-(-side // _SHAPE_STEP) * _SHAPE_STEP) for side in largest)
        photos = np.zeros((len(examples), *shape, 3), np.uint8)
        for row, example in zip(photos, examples, strict=True):
            height, width = example["photo_hw"]
            if height > shape[0] or width > shape[1]:
                raise PizaError(
                    f"the photo of record {example['id']} is {width} x {height} pixels, larger than photo_hw "
                    f"({shape[1]} x {shape[0]}); raise photo_hw"
                )
            row[:height, :width] = example["photo"]
        rest = {name: np.stack([example[name] for example in examples]) for name in examples[0] if name != "photo"}
        return {"photo": photos, **rest}


def process_positions(
    first_batch: int, batch_size: int, process_index: int, process_count: int
) -> Callable[[int], int]:
    """Number of an example in this process, from a batch on -> its position in the stream of all processes.

    Batch n holds the positions n * batch_size .. whatever the number of processes, of which each takes its share in
    order; process_count divides batch_size.
    """
    local = batch_size // process_count

    def position(index: int) -> int:
        batch, row = divmod(int(index), local)
        return (first_batch + batch) * batch_size + process_index * local + row

    return position


def _check_share(num_records: int, batch_size: int, index: int, count: int, num_workers: int) -> int:
    if num_records < 1:
        raise PizaError("the data source holds no records")
    if batch_size < 1 or batch_size % count:
        raise PizaError(f"a batch of {batch_size} does not divide among {count} processes; choose a multiple of it")
    if not 0 <= index < count:
        raise PizaError(f"process_index is {index}; it must be in 0..{count - 1}")
    if num_workers < 0:
        raise PizaError(f"num_workers is {num_workers}; it must be 0 or more")
    return batch_size // count
