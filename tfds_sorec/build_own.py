"""Build a data set from your own files: ``python -m tfds_sorec.build_own --annotations=FILE --images=DIR ...``."""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from piza_jax.data.records import Record
from piza_jax.errors import PizaError
from tfds_sorec.own import check, rows
from tfds_sorec.own.own_dataset_builder import DEFAULT, Own, config_of
from tfds_sorec.own.split import split_by_photo
from tfds_sorec.pair import Pair
from tfds_sorec.write import write_together


def build(
    annotations: str | os.PathLike[str],
    images: str | os.PathLike[str],
    data_dir: str | os.PathLike[str],
    name: str = DEFAULT,
    *,
    val_fraction: float = 0.1,
    seed: int = 0,
) -> dict[str, Any]:
    """Check everything, then write both configurations; the same content once more stays as it is.

    Args:
        annotations: CSV, JSON lines, SOREC's JSON or COCO's, see own/rows.py.
        images: folder that the names of photos start from.
        data_dir: where the data set is written.
        name: what it is called, for several beside each other.
        val_fraction: part of the photos whose expressions make the split val; 0 makes none.
        seed: of the split.

    Returns:
        {"splits": split -> number of expressions, "photos": split -> number of photos, "turned": names of photos with
        an EXIF rotation, "folder": where it lies}.

    Raises:
        PizaError: every fault of the rows at once; settings that cannot be; another data set of that name in data_dir.
            Nothing is left behind.
    """
    config_of(name, photos=False)  # a bad name is an error before the photos are read
    found = check.check(rows.read_rows(annotations), annotations, images)
    splits = split_by_photo(found.records, found.digests, val_fraction, seed)
    pair, digest = Pair(splits, found.photos), _digest(splits, found.digests)

    def make(part: str, place: str) -> Own:
        return Own(config=config_of(name, photos=part == "photos"), data_dir=place, pair=pair, digest=digest)

    _, builder = write_together(make, ("photos", "expressions"), data_dir)
    if builder.info.metadata["digest"] != digest:
        raise PizaError(
            f"{builder.data_dir} holds other data (records, photos, val_fraction or seed differ); remove "
            f"{Path(builder.data_dir).parent} with {Path(builder.data_dir).parent}_photos, or give another --name"
        )
    return {
        "splits": {split: len(records) for split, records in splits.items()},
        "photos": {split: len({record.image for record in records}) for split, records in splits.items()},
        "turned": found.turned,
        "folder": str(builder.data_dir),
    }


def _digest(splits: Mapping[str, Sequence[Record]], photos: Mapping[str, str]) -> str:
    """One hash of all that is written."""
    content = {
        split: [[r.id, r.image, r.expression, list(r.box_xyxy)] for r in records] for split, records in splits.items()
    }
    text = json.dumps([content, dict(photos)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Build a TFDS data set from your own photos and expressions.")
    parser.add_argument("--annotations", required=True, help="FILE.csv, .jsonl, or .json in SOREC's or COCO's form")
    parser.add_argument("--images", required=True, help="folder that the names of photos start from")
    parser.add_argument("--data_dir", required=True, help="where the data set is written")
    parser.add_argument("--name", default=DEFAULT, help="what it is called (default: own)")
    parser.add_argument("--val_fraction", type=float, default=0.1, help="part of the photos held out (default 0.1)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of photos held out")
    options = parser.parse_args(arguments)
    try:
        about = build(**vars(options))
    except PizaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for split, number in about["splits"].items():
        print(f"{split}: {number} expressions on {about['photos'][split]} photos")
    if about["turned"]:
        print(
            f"note: {len(about['turned'])} photos carry an EXIF rotation, first {about['turned'][0]}; boxes count "
            "in the pixels as stored: look at some with piza data --preview"
        )
    dataset = "own" if options.name == DEFAULT else f"own/{options.name}"
    print(f"{about['folder']}; train on it with")
    print(
        f"  --config.data.dataset={dataset} --config.data.data_dir={options.data_dir} --config.data.split=train"
        + ("" if "val" in about["splits"] else " --config.evaluation.split=train")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
