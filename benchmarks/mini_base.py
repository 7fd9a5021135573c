"""How well a base finds targets of ordinary size, by the number of look-alikes: ``python -m benchmarks.mini_base``.

A look-alike has the kind, the colour and the detail of the target and is in the picture too, so that only what is said
of other things tells them apart; among n of them a guess is right once in n + 1.
"""

import argparse
from collections.abc import Iterator, Sequence

import jax
import numpy as np

import piza_jax
from benchmarks.command import command, start
from piza_jax import shipped
from piza_jax.data.mini_source import MiniSource
from piza_jax.data.world.pictures import Picture, make_picture
from piza_jax.data.world.scene import Thing
from piza_jax.evaluation.evaluate import measure, predictions
from piza_jax.evaluation.metrics import ALL, summarise

MOST = 3  # look-alikes that are told apart in the table


def look_alikes(source: MiniSource) -> list[int]:
    """Number of look-alikes of each record's target, of which at least half is in the picture."""
    numbers = dict.fromkeys(number for number, _ in source.records)  # each once, in the order of the records
    return [count for number in numbers for count in _look_alikes(make_picture(source.split, number))]


def _look_alikes(picture: Picture) -> Iterator[int]:
    seen = [thing for thing in picture.scene.things if thing.part_in(picture.window) >= 0.5]
    for said in picture.expressions:
        target = picture.scene.things[said.target]
        yield sum(look_of(thing) == look_of(target) for thing in seen) - 1


def look_of(thing: Thing) -> tuple[str, str, str | None]:
    """Kind, colour and detail: what two things share that only their surroundings tell apart."""
    return thing.kind, thing.colour, thing.detail


def groups_of(counts: np.ndarray, most: int) -> dict[str, np.ndarray]:
    """Which of [N] counts are in each row of a table, bool [N]: all of them, 0, 1 ... and ``most`` or more."""
    groups = {"all": counts >= 0, **{str(number): counts == number for number in range(most)}}
    return {**groups, f"{most} or more": counts >= most}


def table(checkpoint: str, scenes: int, records: int) -> str:
    """A markdown table: all records, then those with 0, 1, 2 ... look-alikes."""
    source = MiniSource("val", scenes, normal=True)
    alike = np.array(look_alikes(source))
    grounder = piza_jax.load(checkpoint, training_free=True, max_steps=1, devices=jax.local_devices())
    found = list(predictions(grounder, source, records))
    counts = alike[[one.index for one in found]]
    lines = ["| look-alikes | sentences | mAcc | Acc50 | Acc75 | right by guessing |", "|---|---|---|---|---|---|"]
    for group, members in groups_of(counts, MOST).items():
        chosen = [one for one, member in zip(found, members, strict=True) if member]
        if chosen:
            numbers = summarise({"": measure(chosen)})[""][ALL] or {}
            cells = " | ".join(f"{100 * numbers[name]:.1f}" for name in ("mAcc", "Acc50", "Acc75"))
            lines.append(f"| {group} | {len(chosen)} | {cells} | {100 * np.mean(1 / (counts[members] + 1)):.0f} |")
    return "\n".join(lines)


@command
def main(arguments: Sequence[str] | None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=shipped.MINI_BASE, help="a detector (default: the base that ships)")
    parser.add_argument("--scenes", type=int, default=100, help="of the normal variant's split val")
    parser.add_argument("--records", type=int, default=300, help="sentences, evenly spread; 0: all")
    options = parser.parse_args(arguments)
    print(table(options.checkpoint, options.scenes, options.records))


if __name__ == "__main__":
    start(main)
