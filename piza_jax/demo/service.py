"""What the page asks for: one search at a time, with limits on the photo, and its results as files."""

import json
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

import piza_jax
from piza_jax import draw, draw_steps
from piza_jax.convert.load import Loaded
from piza_jax.data.decode import decode_rgb
from piza_jax.demo.examples import SIZE_HW, Example
from piza_jax.errors import PizaError
from piza_jax.piza.grounding import Grounder, Grounding
from piza_jax.piza.results import Box

MOST_STEPS, MOST_BEAMS = 8, 5
_KEPT = 6  # compiled programs


@dataclass(frozen=True)
class Limits:
    """What an upload may be.

    Attributes:
        megabytes: size of the file.
        megapixels: width times height, known from the file's header before it is decoded.
    """

    megabytes: float = 40.0
    megapixels: float = 60.0


class Answer(NamedTuple):
    """A search: what was found, the photo with its boxes, the film strip, and files to take away."""

    grounding: Grounding
    boxes: Path  # PNG
    strip: Path  # PNG
    movie: Path  # GIF
    record: Path  # JSON


class Service:
    """Searches of the page. Requests at the same time wait for each other: a model runs one search at a time."""

    def __init__(
        self,
        models: Mapping[str, Loaded],
        folder: Path,
        limits: Limits,
        examples: Sequence[Example] = (),
    ):
        """Take models by their names in the page, and the folder below which every file is written."""
        self.models, self.limits = dict(models), limits
        self._folder = folder
        self._targets = {(one.path.name, one.sentence): one.target for one in examples}
        self._lock = threading.Lock()
        self._grounder = lru_cache(maxsize=_KEPT)(self._open)

    def find(self, path: str | None, sentence: str, steps: int, beam: int, model: str) -> Answer:
        """Search one uploaded photo.

        Args:
            path: the file; None where nothing was uploaded.
            sentence: what to look for.
            steps: most zoom steps, 1..MOST_STEPS.
            beam: paths to follow, 1..MOST_BEAMS.
            model: name of one of the models.

        Raises:
            PizaError: no photo, no sentence, a photo above the limits or that is none, a sentence that is too long,
                numbers out of range.
        """
        if not path:
            raise PizaError("there is no photo yet; drop one into the field, or choose an example")
        if not (sentence or "").strip():
            raise PizaError("there is no sentence yet; say what to look for, such as: the red cone beside the van")
        if model not in self.models:
            raise PizaError(f"there is no model {model!r}; choose one of {', '.join(self.models)}")
        for name, value, most in (("steps", steps, MOST_STEPS), ("beam", beam, MOST_BEAMS)):
            if not 1 <= value <= most:
                raise PizaError(f"{name} is {value:g}; choose 1 to {most}")
        photo = self.read(Path(path))
        with self._lock:
            grounder = self._grounder(model, int(steps), int(beam))
            found = grounder.ground(photo, sentence.strip())
        return self._write(photo, found, Path(path).name, model)

    def read(self, path: Path) -> np.ndarray:
        """Pixels of an upload, uint8 [H, W, 3], turned as a viewer shows it. PizaError above the limits."""
        size = path.stat().st_size
        if size > self.limits.megabytes * 1e6:
            raise PizaError(
                f"{path.name} has {size / 1e6:.1f} MB and the limit is {self.limits.megabytes:g} MB; shrink the photo"
            )
        most = round(self.limits.megapixels * 1e6)
        return decode_rgb(path.read_bytes(), path.name, "upright", max_pixels=most)

    def _open(self, model: str, steps: int, beam: int) -> Grounder:
        return piza_jax.load(
            self.models[model], max_steps=steps, beam=beam, batch_size=1, photo_hw=SIZE_HW, orientation="upright"
        )

    def target(self, photo_name: str, sentence: str) -> Box | None:
        """Where the thing is, for an example of the page."""
        return self._targets.get((photo_name, sentence))

    def _write(self, photo: np.ndarray, found: Grounding, name: str, model: str) -> Answer:
        folder = Path(tempfile.mkdtemp(dir=self._folder, prefix="search_"))
        target = self.target(name, found.expression)
        answer = Answer(found, folder / "boxes.png", folder / "zoom.png", folder / "zoom.gif", folder / "zoom.json")
        draw.save(draw_steps.with_steps(photo, found), answer.boxes)
        draw.save(draw.film_strip(photo, found, target_xyxy=target, coloured=True), answer.strip)
        draw_steps.save_gif(photo, found, answer.movie)
        size = {"photo": name, "width": photo.shape[1], "height": photo.shape[0]}
        answer.record.write_text(json.dumps({**size, "model": model, **found.to_dict()}, indent=1), encoding="utf-8")
        return answer
