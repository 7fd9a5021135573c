"""Score a file of predictions against annotation files: no model, no checkpoint and no photos."""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from piza_jax.data.records import Record
from piza_jax.evaluation.join import check_format, join, read_splits
from piza_jax.evaluation.predictions_file import read_predictions
from piza_jax.evaluation.scoring import Answer, of_file


def answers_of_file(
    predictions: str | os.PathLike[str],
    annotations: Sequence[str | os.PathLike[str]],
    box_format: str = "auto",
) -> dict[str, list[tuple[Record, Answer]]]:
    """Each record of each annotation file with its answer, by the stem of the file.

    Args:
        predictions: file in any form of ``predictions_file``.
        annotations: files in SOREC's format.
        box_format: see ``read_predictions``.

    Raises:
        PizaError: files that cannot be read, ids that do not fit, boxes in another format.
    """
    splits = read_splits(annotations)
    joined = join(splits, read_predictions(predictions, box_format), str(predictions))
    check_format(joined, splits, str(predictions))
    return {
        split: list(zip(records, of_file(records, joined[split]), strict=True)) for split, records in splits.items()
    }


@contextmanager
def no_collection() -> Iterator[None]:
    """Scoring makes millions of objects, none in a cycle: looking for cycles takes a quarter of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
