"""The paper's table in miniature: ``python -m benchmarks.mini_table --data_dir=DATA --output=OUT``.

Fine-tunes the base of configs/mini.py on SOREC-mini by each method, on each training split and with each seed,
evaluates it on test_a and test_b, and prints the table. Every run writes its own file under OUT; those that are there
already are not repeated, so that a night that was cut short goes on with the same command.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.command import command, start
from piza_jax import shipped

CONFIG = "configs/mini.py"
SPLITS = ("test_a", "test_b")
MEASURES = ("mAcc", "Acc50", "Acc75")


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        title: of the row.
        method: that it is fine-tuned by; "": not at all.
        changes: what differs from the method's settings.
        source: weights to evaluate where nothing is fine-tuned; "": the base.
    """

    title: str
    method: str
    changes: tuple[str, ...] = ()
    source: str = ""

    @property
    def trains(self) -> bool:
        """Whether the row is trained here."""
        return bool(self.method)


ROWS = {
    "zero_shot": Row("zero-shot", ""),
    "full": Row("full fine-tuning", "full"),
    "coop": Row("CoOp", "coop"),
    "piza_coop": Row("PIZA-CoOp", "piza_coop"),
    "vpt": Row("VPT", "vpt"),
    "piza_vpt": Row("PIZA-VPT", "piza_vpt"),
    "lora": Row("LoRA", "lora"),
    "piza_lora": Row("PIZA-LoRA", "piza_lora"),
    "adapter_plus": Row("Adapter+", "adapter_plus"),
    "piza_adapter_plus": Row("PIZA-Adapter+", "piza_adapter_plus"),
    "shipped": Row("PIZA-Adapter+, as shipped", "", source=shipped.MINI),
    # What a model learns without half of the question is a leak in the data.
    "text_only": Row("PIZA-Adapter+, grey photos", "piza_adapter_plus", ("data.hide=photo",)),
    "image_only": Row("PIZA-Adapter+, one sentence for all", "piza_adapter_plus", ("data.hide=expression",)),
    # Ablations of PIZA-Adapter+.
    "one_step": Row("PIZA-Adapter+, 1 step", "piza_adapter_plus", ("search.max_steps=1",)),
    "three_steps": Row("PIZA-Adapter+, 3 steps", "piza_adapter_plus", ("search.max_step_ratio=5.5",)),
    "no_progress": Row("PIZA-Adapter+, no progress", "piza_adapter_plus", ("model.zoom_projection=none",)),
    "no_jitter": Row(
        "PIZA-Adapter+, no jitter", "piza_adapter_plus", ("search.jitter_place=0.0", "search.jitter_scale=0.0")
    ),
    "no_history": Row("PIZA-Adapter+, no history", "piza_adapter_plus", ("model.history=false", "search.max_steps=5")),
}
METHODS = tuple(name for name, row in ROWS.items() if not row.changes and not row.source)


@dataclass(frozen=True)
class Settings:
    """What all runs share; ``steps`` and ``records`` of 0 are the configuration's and all of a split."""

    data_dir: str
    output: Path
    pretrained: str
    steps: int = 0
    records: int = 0
    splits: tuple[str, ...] = SPLITS
    strips: int = 0
    changes: tuple[str, ...] = ()

    def workdir(self, name: str, train_split: str, seed: int) -> str:
        """Folder of the training of a row."""
        return str(self.output / "runs" / f"{name}_{train_split}_{seed}")


def run(settings: Settings, name: str, train_split: str, seed: int) -> dict[str, Any]:
    """Train and evaluate one cell of the table, or read what an earlier call wrote.

    Raises:
        PizaError: as training and evaluation.
    """
    path = settings.output / f"{name}_{train_split}_{seed}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    row = ROWS[name]
    result: dict[str, Any] = {"row": name, "train": train_split, "seed": seed, "trainable": 0, "train_seconds": 0.0}
    source = row.source or settings.pretrained
    changes = [word for word in (*row.changes, *settings.changes) if word.startswith("data.hide")]
    if row.trains:
        source = settings.workdir(name, train_split, seed)
        result |= _train(settings, name, train_split, seed, source)
    result["splits"] = {split: evaluate(settings, name, source, split, changes) for split in settings.splits}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
    return result


def config_of(settings: Settings, name: str, train_split: str, seed: int) -> Any:
    """The configuration of the training of a row; PizaError for settings that there are not."""
    from piza_jax.training.config import load_config

    row = ROWS[name]
    words = [f"data.data_dir={settings.data_dir}", f"seed={seed}", f"pretrained={settings.pretrained}"]
    words += [f"train.num_steps={settings.steps}"] if settings.steps else []
    return load_config(f"{CONFIG}:peft={row.method},train={train_split}", [*words, *row.changes, *settings.changes])


def check(settings: Settings, rows: Iterable[str]) -> None:
    """Raise PizaError for settings that there are not: before the first of many hours."""
    for name in (name for name in rows if ROWS[name].trains):
        config_of(settings, name, "train_s", 0)


def _train(settings: Settings, name: str, train_split: str, seed: int, workdir: str) -> dict[str, Any]:
    from piza_jax.training.reporting import say
    from piza_jax.training.task import train

    row, config = ROWS[name], config_of(settings, name, train_split, seed)
    say(f"\n{row.title} on {train_split}, seed {seed}")
    began = time.perf_counter()
    ended = train(config, workdir, compiled=_STEPS.get((settings, name)))
    if ended.interrupted:
        raise SystemExit(130)
    _STEPS[settings, name] = ended.compiled
    _open.cache_clear()
    return {"train_seconds": time.perf_counter() - began, "steps": config.train.num_steps, **_count(workdir)}


def _count(workdir: str) -> dict[str, int]:
    """Parameters that the run trained, and all of them."""
    from piza_jax.peft import select

    opened = _open(workdir)
    trainable, frozen = (select.count(state) for state in select.split(opened.model, opened.method)[1:])
    return {"trainable": trainable, "parameters": trainable + frozen}


def evaluate(settings: Settings, name: str, source: str, split: str, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Measures of weights on a split, some of its film strips drawn where the settings say so.

    Args:
        settings: data, records and strips.
        name: of the row; the zero-shot one looks once, at views as large as those of the others' trainings.
        source: weights.
        split: of SOREC-mini.
        changes: data.hide=WORD, what the model is not shown.
    """
    from tqdm import tqdm

    import tfds_sorec
    from piza_jax import draw
    from piza_jax.data.blind import BlindSource
    from piza_jax.data.decode import decode_rgb
    from piza_jax.evaluation import scoring
    from piza_jax.evaluation.evaluate import measure, predictions
    from piza_jax.evaluation.metrics import ALL, summarise

    records: Any = tfds_sorec.open_split(settings.data_dir, split, "sorec_mini")
    for word in changes:
        records = BlindSource(records, word.partition("=")[2])
    grounder = _grounder(settings, name, source)
    count = min(settings.records or len(records), len(records))
    folder = settings.output / "strips"
    found = []
    began = time.perf_counter()
    for one in tqdm(predictions(grounder, records, count), total=count, desc=f"{name} {split}", disable=None):
        if len(found) < settings.strips:
            folder.mkdir(parents=True, exist_ok=True)
            photo = decode_rgb(records[one.index]["image"], one.name)
            draw.save(draw.film_strip(photo, one.grounding, target_xyxy=one.target), folder / f"{name}_{one.id}.png")
        found.append(one)
    seconds = time.perf_counter() - began
    numbers = summarise({"": measure(found)})[""][ALL] or {}
    details = scoring.score(scoring.of_model(found)).to_dict()
    return {**numbers, "seconds": seconds, "details": details}


# Runs of one row, which differ in seed and data alone, share its compiled programs.
_STEPS: dict[tuple[Settings, str], Any] = {}
_GROUNDERS: dict[tuple[Settings, str], tuple[str, Any]] = {}  # with the weights in force


@lru_cache(maxsize=1)
def _open(source: str) -> Any:
    from piza_jax.grounder import open_model

    return open_model(source)


def _grounder(settings: Settings, name: str, source: str) -> Any:
    import jax

    from piza_jax.grounder import load

    if (settings, name) not in _GROUNDERS:
        options: dict[str, Any] = {}
        if name == "zero_shot":
            views = config_of(settings, "piza_adapter_plus", "train_s", 0).data.canvas_hw
            options = {"max_steps": 1, "canvas_hw": tuple(views)}
        _GROUNDERS[settings, name] = source, load(_open(source), devices=jax.local_devices(), **options)
    there, grounder = _GROUNDERS[settings, name]
    if there != source:
        grounder.update(_open(source).model)
        _GROUNDERS[settings, name] = source, grounder
    return grounder


def table(results: Iterable[dict[str, Any]]) -> str:
    """A markdown table: for each row and training split the mean over the seeds, with the spread where there are more.

    Accuracies in percent, mAcc / Acc50 / Acc75; the spread is the standard deviation of mAcc.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["row"], result["train"]), []).append(result)
    splits = list(dict.fromkeys(split for group in groups.values() for one in group for split in one["splits"]))
    head = ["method", "trainable", "train", *(f"{split}: mAcc / Acc50 / Acc75" for split in splits)]
    head += ["zoom steps", "training s", "seeds"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for (name, train_split), group in groups.items():
        cells = [ROWS[name].title, f"{group[0]['trainable']:,}", train_split if ROWS[name].trains else "-"]
        cells += [_accuracies([one["splits"][split] for one in group]) for split in splits]
        steps = [one["splits"][split]["mean_steps"] for one in group for split in splits]
        seconds = [one["train_seconds"] for one in group]
        cells += [f"{statistics.mean(steps):.2f}", f"{statistics.mean(seconds):.0f}", str(len(group))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _accuracies(scores: Sequence[dict[str, Any]]) -> str:
    means = [100 * statistics.mean(score[name] for score in scores) for name in MEASURES]
    spread = f" ±{100 * statistics.stdev(score['mAcc'] for score in scores):.1f}" if len(scores) > 1 else ""
    return f"{means[0]:.1f}{spread} / {means[1]:.1f} / {means[2]:.1f}"


@command
def main(arguments: Sequence[str] | None) -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="SOREC-mini, as python -m tfds_sorec.build_mini builds it")
    parser.add_argument("--output", required=True, type=Path, help="folder of runs and results")
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=METHODS, help="default: the methods")
    parser.add_argument("--train", nargs="+", default=["train_s"], help="training splits")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=0, help="training steps; default: the configuration's")
    parser.add_argument("--records", type=int, default=0, help="of each test split, evenly spread; default: all")
    parser.add_argument("--splits", nargs="+", default=SPLITS)
    parser.add_argument("--strips", type=int, default=0, help="film strips to draw for each row and split")
    parser.add_argument(
        "--pretrained", default=shipped.MINI_BASE, help="the base that all rows start from (default: the shipped one)"
    )
    parser.add_argument("--set", nargs="+", default=[], dest="changes", help="settings of all runs, key=value")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    shared = {
        name: getattr(options, name) for name in ("data_dir", "output", "pretrained", "steps", "records", "strips")
    }
    settings = Settings(**shared, splits=tuple(options.splits), changes=tuple(options.changes))
    check(settings, options.rows)
    results = []
    for seed in options.seeds:
        for train_split in options.train:
            for name in options.rows:
                if ROWS[name].trains or (train_split, seed) == (options.train[0], options.seeds[0]):
                    results.append(run(settings, name, train_split, seed))
    text = table(sorted(results, key=lambda one: (list(ROWS).index(one["row"]), one["train"])))
    (options.output / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    start(main)
