"""Build RefCOCO, RefCOCO+ or RefCOCOg: ``python -m tfds_sorec.build_refcoco --manual_dir=DIR --data_dir=DIR``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from piza_jax.errors import PizaError
from tfds_sorec.refcoco import annotations
from tfds_sorec.refcoco.refcoco_dataset_builder import Refcoco
from tfds_sorec.refcoco.variants import VARIANTS
from tfds_sorec.write import write_together


def build(
    manual_dir: str | os.PathLike[str],
    data_dir: str | os.PathLike[str],
    variants: Sequence[str] | None = None,
    *,
    images: str | os.PathLike[str] | None = None,
    allow_missing_images: bool = False,
    across_variants: bool = False,
) -> dict[str, dict[str, Any]]:
    """Build both configurations of each data set; one that is complete stays as it is.

    Args:
        manual_dir: folder of the annotations, see refcoco/annotations.py, and of COCO's photos.
        data_dir: where the data sets are written.
        variants: keys of VARIANTS; None takes those whose annotations are there.
        images: folder of COCO's photos where it is not below manual_dir.
        allow_missing_images: leave out expressions whose photo is absent.
        across_variants: keep photos that any of the three holds out from train.

    Returns:
        Data set -> {"splits": split -> number of expressions, "left_out": split -> reason -> number, "files": read}.

    Raises:
        PizaError: annotations or photos that cannot be used, or a data set that was built with another
            across_variants; nothing new is left behind.
    """
    folder = Path(manual_dir)
    if not folder.is_dir():
        raise PizaError(f"manual_dir {folder} is no folder; give the one that holds the annotations")
    if variants is None:
        variants = [name for name, variant in VARIANTS.items() if annotations.is_there(folder, variant)]
    if not variants:
        looked = "; ".join(annotations.places(folder, variant) for variant in VARIANTS.values())
        raise PizaError(f"there are no annotations of RefCOCO, RefCOCO+ or RefCOCOg; looked for {looked}")

    def make(config: str, place: str) -> Refcoco:
        options = {"allow_missing_images": allow_missing_images, "across_variants": across_variants}
        return Refcoco(config=config, data_dir=place, images=images, **options)

    counts = {}
    for name in variants:
        _, builder = write_together(make, (f"{name}_photos", name), data_dir, folder)
        about = builder.info.metadata
        if about["across_variants"] != across_variants:
            raise PizaError(
                f"the data set {builder.data_dir} was built with across_variants={about['across_variants']}; remove it "
                "with its photos, or build elsewhere"
            )
        splits = {split: info.num_examples for split, info in builder.info.splits.items()}
        order = [split for split in VARIANTS[name].splits if split in splits]
        counts[name] = {"splits": {split: splits[split] for split in order}}
        counts[name] |= {key: about[key] for key in ("left_out", "files")}
    return counts


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Build RefCOCO, RefCOCO+ and RefCOCOg for TFDS as array_record files.")
    parser.add_argument("--manual_dir", required=True, help="folder with MDETR's or refer's files, and train2014")
    parser.add_argument("--data_dir", required=True, help="where the data sets are written")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), help="default: those that are there")
    parser.add_argument("--images", help="folder of COCO's photos where it is not below manual_dir")
    parser.add_argument("--allow_missing_images", action="store_true", help="leave out expressions without a photo")
    parser.add_argument(
        "--across_variants", action="store_true", help="photos held out by any of the three leave train"
    )
    options = parser.parse_args(arguments)
    try:
        counts = build(**vars(options))
    except PizaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, about in counts.items():
        print(f"{name}, from {', '.join(about['files'])}")
        for split, number in about["splits"].items():
            print(f"  {split}: {number} expressions{_left_out(about['left_out'].get(split, {}))}")
    return 0


def _left_out(reasons: dict[str, int]) -> str:
    """What was left out of a split and why, as the end of a line."""
    said = {
        "photo held out": f"on {reasons.get('photos')} photos that other splits show",
        "photo missing": "for want of their photo",
        "no words": "without words",
    }
    return "".join(f", {reasons[reason]} left out {text}" for reason, text in said.items() if reason in reasons)


if __name__ == "__main__":
    sys.exit(main())
