"""Ground every record of a source and measure the boxes against the annotations."""

import contextlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from piza_jax.data.decode import decode_rgb
from piza_jax.data.samples import naming
from piza_jax.data.search import check_box
from piza_jax.errors import PizaError
from piza_jax.evaluation import metrics
from piza_jax.ops.boxes import iou_and_giou
from piza_jax.piza.grounding import Grounder, Grounding

Ground = Callable[[Sequence[np.ndarray], Sequence[str]], list[Grounding]]


class Records(Protocol):
    """What is evaluated: records as data.pipeline.Source gives them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Prediction:
    """One record, its place in the source, and what was found; boxes are xyxy photo pixels."""

    index: int
    id: int
    name: str
    target: tuple[float, float, float, float]
    iou: float
    grounding: Grounding

    def to_dict(self) -> dict[str, Any]:
        """Plain dict, ready for JSON."""
        head = {"id": self.id, "photo": self.name, "target": list(self.target), "iou": self.iou}
        return head | self.grounding.to_dict()


def spread(total: int, num_records: int = 0) -> list[int]:
    """Places of num_records records, evenly spread over total ones; 0: all of them."""
    count = min(num_records, total) if num_records else total
    return [index * total // count for index in range(count)]


def predictions(
    grounder: Grounder, records: Records, num_records: int = 0, ground: Ground | None = None
) -> Iterator[Prediction]:
    """Ground the records in batches of the grounder.

    Args:
        grounder: the model; boxes are measured in stored pixels, so its orientation must be "stored".
        records: what to ground.
        num_records: this many, evenly spread over the source; 0: all of them.
        ground: called in place of ``grounder.ground``, to measure it.

    Raises:
        PizaError: no records, or a record that cannot be read, by its id and photo.
    """
    if not len(records):
        raise PizaError("there is nothing to evaluate: the source holds no record")
    chosen = spread(len(records), num_records)
    with contextlib.closing(_opened(grounder, records, chosen)) as opened:
        while batch := list(itertools.islice(opened, grounder.batch_size)):
            photos, texts = [one.photo for one in batch], [one.record["expression"] for one in batch]
            found = (ground or grounder.ground)(photos, texts)
            targets = np.array([one.target for one in batch])
            overlaps = np.asarray(iou_and_giou(jnp.array([one.box for one in found]), jnp.array(targets))[0])
            for opening, overlap, one in zip(batch, overlaps, found, strict=True):
                x0, y0, x1, y1 = map(float, opening.target)
                named = int(opening.record["id"]), str(opening.record["name"])
                yield Prediction(opening.index, *named, (x0, y0, x1, y1), float(overlap), one)


@dataclass(frozen=True)
class _Opened:
    """A record with its place, its photo uint8 [H, W, 3] and its box, xyxy photo pixels [4]."""

    index: int
    record: Mapping[str, Any]
    photo: np.ndarray
    target: np.ndarray


def _opened(grounder: Grounder, records: Records, chosen: Sequence[int]) -> Generator[_Opened, None, None]:
    """The records in order, their photos decoded by threads, a batch ahead of the device."""

    def decode(index: int) -> _Opened:
        record = records[index]
        with naming(record):
            photo = decode_rgb(record["image"], record["name"])
            target = check_box(record["box_xyxy"], (photo.shape[1], photo.shape[0]))
            grounder.tokenizer.encode(record["expression"], grounder.max_tokens)
        return _Opened(index, record, photo, target)

    with ThreadPoolExecutor(min(grounder.batch_size, os.cpu_count() or 1)) as pool:
        waiting: deque[Future[_Opened]] = deque()
        try:
            for index in chosen:
                waiting.append(pool.submit(decode, index))
                if len(waiting) > grounder.batch_size:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


def measure(found: Sequence[Prediction], edges_px2: Sequence[float] = metrics.SIZE_EDGES_PX2) -> metrics.Groups:
    """SOREC's measures of predictions, for all of them and by target size."""
    sides = np.array([one.target for one in found]).reshape(-1, 2, 2)
    return metrics.measure(
        jnp.array([one.iou for one in found]),
        jnp.array([one.grounding.passes for one in found]),
        jnp.array(np.diff(sides, axis=1)[:, 0].prod(axis=-1)),
        jnp.ones(len(found), bool),
        edges_px2,
    )
