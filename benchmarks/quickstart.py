"""The claim of the paper in miniature, from nothing, in minutes: ``python -m benchmarks.quickstart --output=out``.

Draws SOREC-mini, fine-tunes the shipped base by PIZA-Adapter+ and by Adapter+ for the same number of steps, evaluates
both on scenes that neither has seen, and beside them the shipped piza-mini, which was trained for longer. Leaves a
table, a loss curve and film strips.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

from benchmarks import mini_table
from piza_jax.errors import PizaError

ROWS = ("zero_shot", "adapter_plus", "piza_adapter_plus")
SCENES = {"train_s": 200, "train_l": 1, "val": 1, "test_a": 30, "test_b": 30}


def run(output: Path, steps: int, records: int, scenes: dict[str, int] | None = None) -> str:
    """All of it; returns the table. Running it again goes on where it stopped.

    Args:
        output: folder of the data, the runs and the results.
        steps: training steps of each method.
        records: expressions of test_a to evaluate on.
        scenes: scenes of each split; by default SCENES.

    Raises:
        PizaError: a folder that cannot be written, or one that holds data of another size.
    """
    from piza_jax import draw
    from piza_jax.draw_curve import line_chart
    from piza_jax.training.writer import read_metrics
    from tfds_sorec.build_mini import build

    output.mkdir(parents=True, exist_ok=True)
    data = output / "data"
    counts = build(data, variants=("small",), scenes=scenes or SCENES)["small"]
    print(f"SOREC-mini: {counts['train_s']} expressions to learn from, {counts['test_a']} to test on", flush=True)
    settings = mini_table.Settings(
        str(data),
        output,
        steps=steps,
        records=records,
        splits=("test_a",),
        strips=6,
        changes=("checkpoint.every=1000",),
    )
    results = [mini_table.run(settings, name, "train_s", 0) for name in ROWS]
    results.append(mini_table.run(settings, "shipped", "train_s", 0))
    lines = {}
    for name in ROWS[1:]:
        metrics = read_metrics(settings.workdir(name, "train_s", 0))
        lines[mini_table.ROWS[name].title] = [(one["step"], one["loss"]) for one in metrics if "loss" in one]
    curve = line_chart(lines, title="Loss on SOREC-mini", across="training step", up="loss")
    draw.save(curve, output / "loss.png")
    _save_photo(data, output / "photo.jpg")
    text = mini_table.table(results)
    (output / "table.md").write_text(text + "\n", encoding="utf-8")
    return text


def _save_photo(data: Path, path: Path) -> None:
    """A scene to try the command on, and how."""
    import tfds_sorec

    record = tfds_sorec.open_split(data, "test_a", "sorec_mini")[0]
    path.write_bytes(record["image"])
    command = f'piza ground {path} "{record["expression"]}" --save={path.with_name("zoom.png")}'
    (path.parent / "try.sh").write_text(command + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("out/quickstart"), help="folder of all that it makes")
    parser.add_argument("--steps", type=int, default=150, help="training steps of each method")
    parser.add_argument("--records", type=int, default=200, help="expressions to evaluate on")
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    try:
        text = run(options.output, options.steps, options.records)
    except PizaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n{text}\n\n{time.perf_counter() - began:.0f} s, {peak:.1f} GB of memory at most")
    print(f"table.md, loss.png and strips/ are in {options.output}; try")
    print((options.output / "try.sh").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
