"""Draws the figures of the documentation: ``python -m docs.make_figures docs/figures``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from piza_jax.data.search import SearchConfig, ideal_boxes, progress, search_boxes
from piza_jax.data.world.pictures import make_picture
from piza_jax.data.world.splits import find_split
from piza_jax.draw import film_strip
from piza_jax.draw_curve import line_chart
from piza_jax.piza.results import Grounding, Step


def draw_search(path: Path, scene: int = 2, seed: int = 3) -> None:
    """Film strip of a jittered search on a scene of SOREC-mini: what a training sample is cut from."""
    picture = make_picture(find_split("val"), scene)
    record = picture.records[0]
    config = SearchConfig(max_step_ratio=5.0)  # three steps, to show more of them
    boxes = search_boxes(picture.size, record.box_xyxy, np.random.default_rng(seed), config)
    corners = [tuple(float(side) for side in box) for box in boxes]
    nan = float("nan")
    steps = tuple(
        Step(crop, box, nan, float(done), nan)  # type: ignore[arg-type]
        for crop, box, done in zip(corners, corners[1:], progress(boxes), strict=False)
    )
    found = Grounding(record.expression, corners[-1], nan, steps)  # type: ignore[arg-type]
    film_strip(picture.draw(), found, height=260, coloured=True).save(path)


def draw_progress(path: Path) -> None:
    """Progress by step, of searches whose targets are ever smaller."""
    lines = {}
    for power in (1, 2, 3, 4):
        side = 4096 / 15.9**power
        boxes = ideal_boxes((4096, 4096), (1000, 1000, 1000 + side, 1000 + side), SearchConfig(min_crop_px=1.0))
        name = f"{len(boxes) - 1} step{'s' if len(boxes) > 2 else ''}"
        lines[name] = [(float(step), float(done)) for step, done in enumerate(progress(boxes))]
    line_chart(lines, title="Progress of a search", across="step", up="progress").save(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw all of them into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    draw_search(folder / "search.png")
    draw_progress(folder / "progress.png")


if __name__ == "__main__":
    main()
