"""How the weights that ship are made: ``python -m benchmarks.mini_weights --output=OUT --data_dir=DATA``.

Stages of configs/mini.py run one after another, each from the weights of the one before, and the last fine-tunes
PIZA-Adapter+ on SOREC-mini; the base and the adapter are then written in float16, as the package holds them. After each
stage its accuracy is printed. The same command goes on where it was stopped. A GPU has time for more:
``--set relations.train.batch_size=64 relations.train.num_steps=6000``.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import mini_base, mini_table
from benchmarks.command import command, start
from piza_jax.errors import PizaError

CONFIG = "configs/mini.py"
STAGES = {
    "towers": "peft=none,stage=towers",
    "captions": "peft=none",
    "sentences": "peft=none,stage=sentences",
    "relations": "peft=none,stage=relations",
    "adapter": "peft=piza_adapter_plus,train=train_l",
}
TUNED = "adapter"


@dataclass(frozen=True)
class Settings:
    """What all stages share.

    Attributes:
        output: folder of runs and weights.
        stages: names of STAGES, in order.
        pretrained: weights that the first stage starts from; "": random ones.
        data_dir: SOREC-mini, for the last stage.
        changes: stage.key=value.
        records: sentences that each stage is evaluated on.
    """

    output: Path
    stages: tuple[str, ...]
    pretrained: str = ""
    data_dir: str = ""
    changes: tuple[str, ...] = ()
    records: int = 300

    def overrides(self, stage: str) -> list[str]:
        """Words that change the configuration of a stage."""
        words = [word.partition(".")[2] for word in self.changes if word.partition(".")[0] == stage]
        return words + ([f"data.data_dir={self.data_dir}"] if stage == TUNED else [])


def check(settings: Settings) -> None:
    """PizaError for a change of a stage that does not run, and for a fine-tuning without its data."""
    for word in settings.changes:
        if word.partition(".")[0] not in settings.stages:
            raise PizaError(
                f"--set {word}: it must begin with one of the stages {', '.join(settings.stages)} and a dot"
            )
    if TUNED in settings.stages and not settings.data_dir:
        raise PizaError(f"the stage {TUNED} needs --data_dir, as python -m tfds_sorec.build_mini builds it")


def make(settings: Settings) -> None:
    """Run the stages and write the weights.

    Raises:
        PizaError: as ``check``, training and evaluation.
        SystemExit: stopped by a signal; the same call goes on.
    """
    from piza_jax.convert import export
    from piza_jax.convert.load import load_source
    from piza_jax.training.config import load_config
    from piza_jax.training.task import train

    check(settings)
    source, base = settings.pretrained, settings.output / "piza_mini_base"
    configs = {stage: load_config(f"{CONFIG}:{STAGES[stage]}", settings.overrides(stage)) for stage in settings.stages}
    last_of_base = [stage for stage in settings.stages if stage != TUNED][-1:]
    for stage, config in configs.items():
        config.pretrained = source
        workdir, began = str(settings.output / stage), time.perf_counter()
        if train(config, workdir).interrupted:
            raise SystemExit(130)
        print(f"\n{stage}: {time.perf_counter() - began:.0f} s\n{_accuracy(settings, stage, workdir)}\n", flush=True)
        if stage == TUNED:
            adapter = settings.output / "piza_mini"
            if not adapter.exists():
                export.save_adapter(load_source(workdir), adapter, load_source(source), half=True)
            continue
        source = workdir
        if stage in last_of_base:
            if not base.exists():
                export.save_whole(load_source(workdir), base, half=True)
            source = str(base)  # the adapter is fine-tuned on the weights as they ship


def _accuracy(settings: Settings, stage: str, workdir: str) -> str:
    if stage != TUNED:
        return mini_base.table(workdir, 100, settings.records)
    table = mini_table.Settings(settings.data_dir, settings.output, workdir, records=settings.records)
    numbers = mini_table.evaluate(table, stage, workdir, "test_a")
    return ", ".join(f"{name} {100 * numbers[name]:.1f}" for name in mini_table.MEASURES)


@command
def main(arguments: Sequence[str] | None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=Path, help="folder of runs and weights")
    parser.add_argument("--stages", nargs="+", choices=tuple(STAGES), default=tuple(STAGES), help="default: all")
    parser.add_argument("--pretrained", default="", help="weights that the first stage starts from (default: random)")
    parser.add_argument("--data_dir", default="", help="SOREC-mini, as python -m tfds_sorec.build_mini builds it")
    parser.add_argument("--set", nargs="+", default=[], dest="changes", help="settings of a stage, stage.key=value")
    parser.add_argument("--records", type=int, default=300, help="sentences that each stage is evaluated on")
    options = parser.parse_args(arguments)
    stages = tuple(stage for stage in STAGES if stage in options.stages)
    changes = tuple(options.changes)
    make(Settings(options.output, stages, options.pretrained, options.data_dir, changes, options.records))


if __name__ == "__main__":
    start(main)
