"""The input pipeline on real photos, against a PyTorch DataLoader: ``python -m benchmarks.pipeline``.

Both give the same batches: a photo decoded, a crop of it resized onto the canvas, token ids, a target. The loader works
with Pillow and as many workers. Of SOREC's photos there are three here, so each lies in a folder under many names, and
a record's target is of a real one's size and words but lies anywhere: to both sides these are as many photos with
several expressions each. The loader decodes a photo for each, and so do we unless ``--expressions_a_photo`` lets some
follow each other; the loader makes the same examples in the same order. Each measured run begins after ``--warm``
batches, so that workers run and buffers are full.
"""

import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import interleaved, peers, table
from piza_jax.data.pipeline import train_batches
from piza_jax.data.records import PHOTO_FOLDER, Record, RecordSource
from piza_jax.data.samples import SampleConfig
from piza_jax.data.tokenize import Tokenizer
from piza_jax.data.views import content_hw, photo_to_view
from piza_jax.errors import PizaError

TITLE = "Input pipeline on real photos, against a PyTorch DataLoader"
BAR = 2.0
MOST_LEVELS = 2.0  # mean absolute difference of the worst batch's images, of 255
SOREC = Path(os.environ.get("PIZA_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "sorec"


@dataclasses.dataclass(frozen=True)
class Example:
    """What the peer is told to make of a record: the crop that ours drew, float32 [4] xyxy px, and its target."""

    path: str
    crop_xyxy: tuple[float, ...]
    expression: str
    target_xyxy: tuple[float, ...]


class PillowExamples:
    """A map-style data set as PyTorch users write it; it needs none of PyTorch itself."""

    def __init__(self, examples: Sequence[Example], tokenizer: Tokenizer, config: SampleConfig):
        self.examples, self.tokenizer, self.config = list(examples), tokenizer, config

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Decode, crop, resize, tokenise."""
        example, canvas_hw = self.examples[index], self.config.canvas_hw
        image = Image.open(example.path).convert("RGB")
        crop = np.array(example.crop_xyxy, np.float32)
        height, width = content_hw(crop, canvas_hw)
        view = image.resize((width, height), Image.Resampling.BILINEAR, box=tuple(map(float, crop)))
        canvas = np.zeros((*canvas_hw, 3), np.uint8)
        canvas[:height, :width] = np.asarray(view)
        input_ids, token_mask = self.tokenizer.encode(example.expression, self.config.max_tokens)
        target = photo_to_view(np.array(example.target_xyxy), crop)
        return {"image": canvas, "input_ids": input_ids, "token_mask": token_mask, "target_box": target}


def main(arguments: Sequence[str] | None = None) -> str:
    """Run, print and append; returns the row."""
    parser = interleaved.parser(__doc__, runs=3, dtypes=("uint8",))
    parser.add_argument("--sorec", type=Path, default=SOREC, help="folder with SODA-D's photos and testA.json")
    parser.add_argument("--photos", type=int, default=48, help="names that the photos have")
    parser.add_argument("--expressions", type=int, default=7, help="of each photo (SOREC's train_s has 6.9)")
    parser.add_argument(
        "--expressions_a_photo", type=int, default=1, help="that follow each other: ours decodes it once"
    )
    parser.add_argument("--canvas", type=int, help="side of the square canvas (1024)")
    parser.add_argument("--workers", type=int, help="processes of each side (as many as cores; 0 with --small)")
    parser.add_argument("--batch", type=int, help="examples in a batch (8)")
    parser.add_argument("--batches", type=int, help="in a measured run (16)")
    parser.add_argument("--warm", type=int, help="batches before it (4)")
    options = parser.parse_args(arguments)
    small = options.small
    canvas, batch = options.canvas or (64 if small else 1024), options.batch or (2 if small else 8)
    count, warm = options.batches or (2 if small else 16), options.warm or (1 if small else 4)
    config = SampleConfig(canvas_hw=(canvas, canvas), max_tokens=256)
    with interleaved.session(options) as machine, tempfile.TemporaryDirectory() as folder:
        workers = options.workers if options.workers is not None else (0 if small else machine.threads)
        source = _drawn(Path(folder)) if small else _repeated(options, Path(folder))
        tokenizer = Tokenizer.train(sorted({record.expression for record in source.listed()}), 4000)

        def ours() -> Iterator[dict[str, np.ndarray]]:
            order = {"seed": 0, "expressions_a_photo": options.expressions_a_photo}
            return iter(train_batches(source, tokenizer, config, batch_size=batch, num_workers=workers, **order))

        shown, examples = _look(ours(), source, warm + count)
        dataset = PillowExamples(examples, tokenizer, config)

        def peer() -> Iterator[dict[str, Any]]:
            from torch.utils.data import DataLoader

            how = {"multiprocessing_context": "spawn"} if workers else {}
            return iter(DataLoader(dataset, batch_size=batch, num_workers=workers, **how))

        theirs = [np.asarray(one["image"]) for one in peer()]
        levels = [np.abs(a.astype(np.int16) - b).mean() for a, b in zip(shown, theirs, strict=True)]
        difference = interleaved.check("levels of 255", float(max(levels)), MOST_LEVELS)
        times = alternate(ours, peer, warm, count, options.runs)
    photos = len({record.image for record in source.listed()})
    shapes = (
        f"{len(source)} records of {photos} photos, canvas {canvas} x {canvas}, batch {batch}, {workers} workers, "
        f"expressions of a photo {options.expressions_a_photo} at a time; times of one example"
    )
    result = table.Result(TITLE, shapes, *times, BAR, difference, unit="ms", factor=1e3 / (batch * count))
    return table.report(result, machine, options, table.command("pipeline", arguments))


def alternate(
    ours: Callable[[], Iterator], peer: Callable[[], Iterator], warm: int, count: int, runs: int
) -> tuple[interleaved.Timing, interleaved.Timing]:
    """Seconds of ``count`` batches of each side in turn, every time by a new iterator after its first ``warm`` ones.

    The first call is the time to the first batch, the start of the workers included.
    """
    first: tuple[list[float], list[float]] = ([], [])
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for make, firsts, times in zip((ours, peer), first, seconds, strict=True):
            began = time.perf_counter()
            batches = make()
            next(batches)
            firsts.append(time.perf_counter() - began)
            for _ in range(warm - 1):
                next(batches)
            began = time.perf_counter()
            for _ in range(count):
                next(batches)
            times.append(time.perf_counter() - began)
            close = getattr(batches, "close", None)
            if close is not None:
                close()
            del batches  # a DataLoader's workers end with it
    return interleaved.Timing(first[0][0], tuple(seconds[0])), interleaved.Timing(first[1][0], tuple(seconds[1]))


def _look(batches: Any, source: RecordSource, count: int) -> tuple[list[np.ndarray], list[Example]]:
    """Images of our first batches, and what the peer must do for the same ones."""
    records = {record.id: record for record in source.listed()}
    images, examples = [], []
    for _ in range(count):
        batch = next(batches)
        images.append(batch["image"])
        for number, boxes, mask in zip(batch["id"], batch["history"], batch["history_mask"], strict=True):
            record, crop = records[int(number)], boxes[mask][-1]
            path = str(source.paths[record.image])
            examples.append(Example(path, tuple(map(float, crop)), record.expression, record.box_xyxy))
    batches.close()
    return images, examples


def _repeated(options: Any, folder: Path) -> RecordSource:
    """The photos of ``--sorec`` under ``--photos`` names, with sizes of boxes and words of its annotations."""
    photos = [*sorted((options.sorec / PHOTO_FOLDER).glob("*.jpg")), *sorted(options.sorec.glob("*.jpg"))]
    annotations = options.sorec / "testA.json"
    if not photos or not annotations.is_file():
        raise PizaError(f"{options.sorec} holds no {PHOTO_FOLDER}/*.jpg or no testA.json; give --sorec")
    listed = json.loads(annotations.read_text(encoding="utf-8"))
    rng, records = np.random.default_rng(0), []
    for number in range(options.photos):
        path = photos[number % len(photos)]
        name = f"{path.stem}_{number}.jpg"
        (folder / name).write_bytes(path.read_bytes())
        width, height = Image.open(path).size
        for _ in range(options.expressions):
            item = listed[int(rng.integers(len(listed)))]
            records.append(_placed(len(records), name, item["ref"], item["bbox"][2:], (width, height), rng))
    return RecordSource(records, folder)


def _drawn(folder: Path) -> RecordSource:
    rng = np.random.default_rng(0)
    records = []
    for number in range(2):
        Image.fromarray(peers.photo(240, 320)).save(folder / f"{number}.jpg", quality=90)
        records += [
            _placed(2 * number + one, f"{number}.jpg", "the blue car", (20, 16), (320, 240), rng) for one in (0, 1)
        ]
    return RecordSource(records, folder)


def _placed(
    number: int, image: str, text: str, size: Sequence[float], photo_wh: tuple[int, int], rng: np.random.Generator
) -> Record:
    low = np.floor(rng.uniform(size=2) * (np.array(photo_wh) - size))
    return Record(number, image, text, tuple(map(float, [*low, *(low + size)])))  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(table.program(main))
