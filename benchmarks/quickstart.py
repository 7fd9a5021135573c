"""What zooming gives, from nothing, in minutes: ``python -m benchmarks.quickstart``.

Draws a small SOREC-mini, fine-tunes the base that ships by Adapter+ and by PIZA-Adapter+ for a few steps, evaluates
both on streets that neither has seen, beside the base as it is and the weights that ship, and prints the table.
``OUT/table.md`` keeps it, ``OUT/loss.png`` has both curves and ``OUT/strips`` the zooms. A second call with the same
folder goes on where the first one ended.
"""

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import mini_table
from benchmarks.command import command, start
from piza_jax import shipped

SCENES = {"train_s": 100, "test_a": 20}
STEPS, RECORDS, STRIPS = 150, 40, 4
# Views of a quarter of the pixels that piza-mini learnt with: two cores have minutes, and a target is five pixels wide.
VIEWS = ("data.canvas_hw=(192,256)", "data.scale_range=(0.9,1.0)")
CHANGES = (
    "train.batch_size=8",
    "train.log_every=1",
    "optimizer.learning_rate=1.5e-3",
    "optimizer.warmup_steps=8",
    *VIEWS,
)
ZOOMING = ('optimizer.rate_factors=(("^history/",4.0),)',)  # it has to say stop after a few hundred samples that do
WINDOW = 10  # steps of 8 pictures that a point of the curve is the mean of
ROWS = ("zero_shot", "adapter_plus", "piza_adapter_plus", "shipped")


def quickstart(output: Path, steps: int = STEPS, records: int = RECORDS, changes: Sequence[str] = ()) -> str:
    """Do all of it and give the table.

    Args:
        output: folder of data, runs and results.
        steps: of each training.
        records: expressions of test_a that are evaluated.
        changes: settings of both trainings, ``key=value``.

    Raises:
        PizaError: as the data set, training and evaluation.
    """
    from piza_jax import draw
    from piza_jax.training.curves import loss_chart
    from tfds_sorec.build_mini import build

    shared = {"steps": steps, "records": records, "splits": ("test_a",), "strips": STRIPS}
    settings = mini_table.Settings(
        str(output / "data"), output, shipped.MINI_BASE, changes=(*CHANGES, *changes), **shared
    )
    rows = {
        name: dataclasses.replace(settings, changes=settings.changes + ZOOMING) if name.startswith("piza") else settings
        for name in ROWS
        if name != "shipped" or shipped.folder_of(shipped.MINI)
    }
    for name, changed in rows.items():
        mini_table.check(changed, [name])
    output.mkdir(parents=True, exist_ok=True)
    build(output / "data", variants=("small",), scenes=SCENES)
    results = [mini_table.run(changed, name, "train_s", 0) for name, changed in rows.items()]
    text = mini_table.table(results)
    runs = {mini_table.ROWS[name].title: settings.workdir(name, "train_s", 0) for name in rows}
    trained = {title: run for title, run in runs.items() if Path(run).is_dir()}
    draw.save(loss_chart(trained, window=min(WINDOW, max(steps // 4, 1))), output / "loss.png")
    (output / "table.md").write_text(text + "\n", encoding="utf-8")
    return text


@command
def main(arguments: Sequence[str] | None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("out/quickstart"), help="folder of data, runs and results")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each training")
    parser.add_argument("--records", type=int, default=RECORDS, help="expressions that are evaluated, evenly spread")
    parser.add_argument("--set", nargs="+", default=[], dest="changes", help="settings of both trainings, key=value")
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    text = quickstart(options.output, options.steps, options.records, options.changes)
    minutes = (time.perf_counter() - began) / 60
    print(f"\n{text}\n\n{minutes:.1f} minutes; {options.output} holds table.md, loss.png and strips/")


if __name__ == "__main__":
    start(main)
