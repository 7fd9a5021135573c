"""Examples a second that one core makes for training: photos decoded whole or as far as needed, alone or in groups.

    python -m benchmarks.decode --annotations=testA.json --images=SODA-D/rawData/Images

The settings are those of configs/piza_sorec.py and configs/mini.py. Each photo stands for many (SOREC has seven
expressions a photo), so that none is met again by chance. The first row is what a data loader does that decodes, crops
and resizes each sample by itself. SOREC-mini is drawn in memory and needs no files. Times are CPU times of one thread,
the settings take turns, and nothing but the reading of files is left out.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from piza_jax.data import views
from piza_jax.data.decode import open_part, open_rgb
from piza_jax.data.mini_source import MiniSource
from piza_jax.data.pipeline import train_batches
from piza_jax.data.records import RecordSource, read_annotations
from piza_jax.data.samples import SampleConfig
from piza_jax.data.search import ideal_boxes
from piza_jax.data.tokenize import Tokenizer
from piza_jax.training.config import load_config
from piza_jax.training.task import sample_config

EXPRESSIONS_A_PHOTO = 7  # of SOREC's train_s: 10,000 on 1,446 photos
STEP_SECONDS = (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Data:
    """Records, one list for each photo, and what becomes of them."""

    name: str
    photos: Sequence[Sequence[Mapping[str, Any]]]
    config: SampleConfig


class Copies:
    """Each photo many times under other names, with EXPRESSIONS_A_PHOTO expressions each."""

    def __init__(self, photos: Sequence[Sequence[Mapping[str, Any]]], copies: int, name: object = ""):
        self.photos, self.name = photos, name
        self.photo_index = np.repeat(np.arange(len(photos) * copies), EXPRESSIONS_A_PHOTO)

    def __len__(self) -> int:
        return len(self.photo_index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        photo = int(self.photo_index[index])
        records = self.photos[photo % len(self.photos)]
        record = records[index % EXPRESSIONS_A_PHOTO % len(records)]
        return {**record, "name": f"{record['name']}, copy {photo} {self.name}", "id": index}


def by_photo(records: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Records in lists, each of one photo."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        found.setdefault(record["name"], []).append(record)
    return list(found.values())


@dataclass(frozen=True)
class Setting:
    """What is timed: scaled decoding or not, and expressions a photo."""

    scaled: bool
    group: int

    def __str__(self) -> str:
        return f"{'as needed' if self.scaled else 'whole'} | {self.group}"


PLAIN = Setting(False, 1)


def measure(data: Data, groups: Sequence[int], batch_size: int, rounds: int, copies: int) -> dict[Setting, np.ndarray]:
    """CPU seconds an example, [rounds]."""
    tokenizer = Tokenizer.train([record["expression"] for records in data.photos for record in records], 500)
    settings = [Setting(scaled, group) for scaled in (False, True) for group in groups]
    found: dict[Setting, list[float]] = {setting: [] for setting in settings}
    for number in range(-1, rounds):  # the first round warms up
        for setting in settings:
            batches = train_batches(
                Copies(data.photos, copies, setting),
                tokenizer,
                replace(data.config, scaled_decode=setting.scaled),
                batch_size=batch_size,
                seed=0,
                expressions_a_photo=setting.group,
            ).make(number + 1)
            start = time.process_time()
            batches[0]
            if number >= 0:
                found[setting].append((time.process_time() - start) / batch_size)
    return {setting: np.array(times) for setting, times in found.items()}


def differences(data: Data) -> dict[int, tuple[set[int], float, float, int]]:
    """Zoom step -> the factors used; mean difference from exact views, that of the worst view, and largest; of 255."""
    found: dict[int, list[tuple[int, np.ndarray]]] = {}
    for records in data.photos:
        image, name = records[0]["image"], records[0]["name"]
        exact = open_rgb(image, name)
        boxes = ideal_boxes(exact.size, records[0]["box_xyxy"], data.config.search)
        for step, box in enumerate(boxes):
            for scale in np.linspace(*data.config.scale_range, 5):
                needs = views.view_needs(box, data.config.canvas_hw, float(scale), exact.size)
                part = open_part(image, name, *needs)
                one, (height, width) = views.make_view(exact, box, data.config.canvas_hw, float(scale))
                other, _ = views.make_view(part, box, data.config.canvas_hw, float(scale))
                difference = np.abs(one.astype(int) - other)[:height, :width]
                found.setdefault(step, []).append((part.factor, difference))
    return {
        step: (
            {factor for factor, _ in rows},
            float(np.mean([difference.mean() for _, difference in rows])),
            float(max(difference.mean() for _, difference in rows)),
            max(int(difference.max()) for _, difference in rows),
        )
        for step, rows in found.items()
    }


def print_tables(data: Data, times: Mapping[Setting, np.ndarray], errors: Mapping[int, Any], batch: int) -> None:
    """What was measured, as Markdown."""
    medians = {setting: float(np.median(seconds)) for setting, seconds in times.items()}
    print(f"\n### {data.name}\n")
    print("| decoded | expressions a photo | ms an example, median (min..max) | examples/s | ratio |")
    print("|---|---|---|---|---|")
    for setting, seconds in times.items():
        median, ratio = medians[setting], medians[PLAIN] / medians[setting]
        spread = f"{1e3 * median:.1f} ({1e3 * seconds.min():.1f}..{1e3 * seconds.max():.1f})"
        print(f"| {setting} | {spread} | {1 / median:.1f} | {ratio:.2f} |")
    print("\n| zoom step | decoded at 1/ | difference from exact, of 255: mean | of the worst view | largest |")
    print("|---|---|---|---|---|")
    for step, (factors, mean, worst, largest) in errors.items():
        print(f"| {step} | {', '.join(map(str, sorted(factors)))} | {mean:.2f} | {worst:.2f} | {largest} |")
    group = max(setting.group for setting in times)
    print(f"\n| {batch} examples every | examples/s | cores, plain | as needed | as needed, groups of {group} |")
    print("|---|---|---|---|---|")
    for step in STEP_SECONDS:
        counted = PLAIN, Setting(True, 1), Setting(True, group)
        cores = [f"{batch / step * medians[setting]:.1f}" for setting in counted]
        print(f"| {step:g} s | {batch / step:.0f} | {' | '.join(cores)} |")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", help="SOREC's JSON; records without a photo are left out")
    parser.add_argument("--images", help="folder of its photos")
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 4, 7], help="expressions a photo, 1 among them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=56, help="examples timed at once")
    parser.add_argument("--host_batch", type=int, default=64, help="examples that a host has to make each step")
    parser.add_argument("--margin", type=float, default=views.DECODE_MARGIN, help="instead of views.DECODE_MARGIN")
    parser.add_argument("--small", action="store_true", help="one scene, one round: to see that it runs")
    options = parser.parse_args(arguments)
    if options.small:
        options.rounds, options.batch, options.groups = 1, 4, [1, 4]
    if bool(options.annotations) != bool(options.images) or 1 not in options.groups:
        parser.error("--annotations and --images go together, and --groups has to hold 1")
    every: list[Data] = []
    if options.annotations:
        source = RecordSource(read_annotations(options.annotations), options.images, allow_missing=True)
        photos = by_photo([source[index] for index in range(len(source))])
        sizes = ", ".join("{} x {}".format(*open_rgb(one[0]["image"], "a photo").size) for one in photos)
        for argument, says in (("", "zooming"), (":peft=full", "one step, the whole photo each time")):
            config = sample_config(load_config(f"configs/piza_sorec.py{argument}"))
            every.append(Data(f"real photos ({sizes}), {says}", photos, config))
    mini = MiniSource("train_s", 1 if options.small else 8)
    config = sample_config(load_config("configs/mini.py", ["data.scale_range=(0.8,1.0)"]))
    every.append(Data("SOREC-mini, zooming", by_photo([mini[index] for index in range(len(mini))]), config))
    before, views.DECODE_MARGIN = views.DECODE_MARGIN, options.margin
    try:
        for data in every:
            copies = 1 + 1000 // len(data.photos)
            times = measure(data, options.groups, options.batch, options.rounds, copies)
            print_tables(data, times, differences(data), options.host_batch)
    finally:
        views.DECODE_MARGIN = before


if __name__ == "__main__":
    main()
