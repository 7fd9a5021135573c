"""What a report shows of single answers: which ones, and their film strips."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from piza_jax import draw
from piza_jax.data.decode import decode_rgb
from piza_jax.data.records import Record
from piza_jax.errors import PizaError
from piza_jax.evaluation import scoring
from piza_jax.evaluation.evaluate import Prediction, Records
from piza_jax.evaluation.geometry import overlaps
from piza_jax.evaluation.scoring import Answer, Score

STRIP_HEIGHT = 240
_QUALITY = 85  # of JPEG: film strips of 60 to 150 kB


@dataclass(frozen=True)
class Case:
    """One answer of a report.

    Attributes:
        id: of the record.
        photo: its name.
        answer: boxes beside the truth.
        iou: overlap of the two, 0..1.
        failure: why it is wrong, see ``failures.judge``; None if it is right.
    """

    id: int
    photo: str
    answer: Answer
    iou: float
    failure: str | None


@dataclass(frozen=True)
class Section:
    """The answers to one split, or those of one method.

    Attributes:
        name: of the split and method.
        score: every number.
        cases: the answers, in the order that ``score`` was made from.
        read_photo: gives the photo of the case with a number, uint8 [H, W, 3]; None: there are no photos.
    """

    name: str
    score: Score
    cases: Sequence[Case]
    read_photo: Callable[[int], np.ndarray] | None = None


def of_model(name: str, found: Sequence[Prediction], score: Score, records: Records) -> Section:
    """What a model found in records, in the order that ``score`` was made from."""

    def read_photo(number: int) -> np.ndarray:
        return decode_rgb(records[found[number].index]["image"], found[number].name)

    rows = [(one.id, one.name, answer) for one, answer in zip(found, scoring.of_model(found), strict=True)]
    return Section(name, score, _cases(rows, score), read_photo)


def of_file(name: str, pairs: Sequence[tuple[Record, Answer]], score: Score, images: str = "") -> Section:
    """Answers of a file; ``images`` is the folder of the photos, if there is one."""

    def read_photo(number: int) -> np.ndarray:
        path = Path(images, pairs[number][0].image)
        try:
            return decode_rgb(path.read_bytes(), path.name)
        except OSError as error:
            raise PizaError(f"the photo {path} cannot be read: {error.strerror or error}") from error

    rows = [(record.id, record.image, answer) for record, answer in pairs]
    return Section(name, score, _cases(rows, score), read_photo if images else None)


def _cases(rows: Sequence[tuple[int, str, Answer]], score: Score) -> list[Case]:
    boxes, targets = [answer.grounding.box for _, _, answer in rows], [answer.target for _, _, answer in rows]
    iou = overlaps(np.array(boxes), np.array(targets)).tolist()
    return [Case(*row, *rest) for row, *rest in zip(rows, iou, score.labels, strict=True)]


def choose(cases: Sequence[Case], count: int, seed: int = 0) -> dict[str, list[int]]:
    """Numbers of at most ``count`` cases each, "best", "worst" and "random".

    Of equally bad answers those come first that had the highest score. The random ones are drawn from all cases,
    without repetition, and are the same for the same number of cases and seed.
    """
    iou = np.array([case.iou for case in cases])
    scores = np.nan_to_num([case.answer.grounding.score for case in cases])
    drawn = np.random.default_rng(seed).choice(len(cases), min(count, len(cases)), replace=False)
    numbers = {"best": np.lexsort((-scores, -iou)), "worst": np.lexsort((-scores, iou)), "random": np.sort(drawn)}
    return {name: order[:count].tolist() for name, order in numbers.items()}


def strip_uri(photo: np.ndarray, case: Case) -> str:
    """The film strip of a case as a data URI, without the expression.

    Raises:
        PizaError: boxes that do not lie in the photo, see ``draw.film_strip``.
    """
    zoom = replace(case.answer.grounding, expression="")
    image = draw.film_strip(photo, zoom, height=STRIP_HEIGHT, target_xyxy=case.answer.target)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"
