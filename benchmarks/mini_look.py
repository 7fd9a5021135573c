"""What the first look of a search goes to in SOREC-mini's streets: ``python -m benchmarks.mini_look``.

A zoom box is drawn around the target, so the thing nearest to its middle is what the model took for it. Counted are the
first looks at a thing of the right kind and colour, at the target itself or a twin of it (the same detail, too), and
those whose box holds the target, beside how many searches end on it; by the number of twins in the street, which only
what is said of other things tells apart.
"""

import argparse
import math
from collections.abc import Sequence

import jax
import numpy as np

import piza_jax
from benchmarks.command import command, start
from benchmarks.mini_base import groups_of, look_of
from piza_jax import shipped
from piza_jax.data.mini_source import MiniSource
from piza_jax.data.world.pictures import make_picture
from piza_jax.data.world.scene import Scene, Thing
from piza_jax.evaluation.evaluate import predictions
from piza_jax.evaluation.geometry import shares_inside
from piza_jax.results import Box

MOST = 2  # twins that are told apart in the table
COLUMNS = ("kind and colour right", "looks like it", "target in the box", "right in the end")


def looked_at(scene: Scene, box_xyxy: Box) -> Thing:
    """The thing whose middle lies nearest to that of a box, scene pixels."""
    middle = (box_xyxy[0] + box_xyxy[2]) / 2, (box_xyxy[1] + box_xyxy[3]) / 2
    return min(scene.things, key=lambda thing: math.dist(thing.centre, middle))


def table(checkpoint: str, split: str, scenes: int, records: int, steps: int) -> str:
    """A markdown table in percent: all records, then those with 0, 1, 2 ... twins.

    Args:
        checkpoint: a model.
        split: of SOREC-mini.
        scenes: how many of its streets, from the first.
        records: sentences, evenly spread; 0: all.
        steps: most steps of a search; 0: as the checkpoint says. With 1 the end is the first look.

    Raises:
        PizaError: as MiniSource and piza_jax.load.
    """
    source = MiniSource(split, scenes)
    options = {"max_steps": steps} if steps else {}
    grounder = piza_jax.load(checkpoint, devices=jax.local_devices(), **options)
    rows, twins = [], []
    for one in predictions(grounder, source, records):
        number, record = source.records[one.index]
        picture = make_picture(source.split, number)
        said = picture.expressions[record.id - 100 * number]
        target = picture.scene.things[said.target]
        first = one.grounding.steps[0].box
        seen = looked_at(picture.scene, first)
        held = shares_inside(np.array([one.target]), np.array([first]))[0] >= 0.5
        rows.append((look_of(seen)[:2] == look_of(target)[:2], look_of(seen) == look_of(target), held, one.iou >= 0.5))
        twins.append(sum(look_of(thing) == look_of(target) for thing in picture.scene.things) - 1)
    counts, found = np.array(twins), np.array(rows)
    lines = [f"| twins | sentences | {' | '.join(COLUMNS)} |", "|---|---|" + "---|" * len(COLUMNS)]
    for group, members in groups_of(counts, MOST).items():
        if members.any():
            cells = " | ".join(f"{100 * part:.0f}" for part in found[members].mean(axis=0))
            lines.append(f"| {group} | {members.sum()} | {cells} |")
    return "\n".join(lines)


@command
def main(arguments: Sequence[str] | None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=shipped.MINI, help="a model (default: the one that ships)")
    parser.add_argument("--split", default="test_a", help="of SOREC-mini")
    parser.add_argument("--scenes", type=int, default=100, help="of the split, from the first")
    parser.add_argument("--records", type=int, default=200, help="sentences, evenly spread; 0: all")
    parser.add_argument("--steps", type=int, default=0, help="most steps of a search; default: the checkpoint's")
    options = parser.parse_args(arguments)
    print(table(options.checkpoint, options.split, options.scenes, options.records, options.steps))


if __name__ == "__main__":
    start(main)
