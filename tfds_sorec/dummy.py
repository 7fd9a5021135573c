"""Draw the builder's dummy data again: ``python -m tfds_sorec.dummy``."""

import os
from pathlib import Path

from piza_jax.data.scenes import write_scenes

FOLDER = Path(__file__).parent / "sorec" / "dummy_data"


def write_dummy_data(folder: str | os.PathLike[str] = FOLDER) -> None:
    """Five small drawn photos and all five annotation files; train_l speaks of the photos of train_s, as in SOREC."""
    folder = Path(folder)
    write_scenes(folder, 5, size=(192, 144))
    for source, copy in (("trainS", "trainL"), ("testA", "testB")):
        (folder / f"{copy}.json").write_bytes((folder / f"{source}.json").read_bytes())


if __name__ == "__main__":
    write_dummy_data()
