"""Build SOREC without TensorFlow: ``python -m tfds_sorec.build --manual_dir=DIR --data_dir=DIR``."""

import argparse
import os
import sys

import tensorflow_datasets as tfds

from piza_jax.errors import PizaError
from tfds_sorec.sorec.sorec_dataset_builder import Sorec


def build(
    manual_dir: str | os.PathLike[str], data_dir: str | os.PathLike[str], allow_missing_images: bool = False
) -> dict[str, tuple[int, int]]:
    """Build both configurations; one that is complete stays as it is.

    Returns:
        Split -> number of expressions kept and left out.

    Raises:
        PizaError: for annotations or photos that cannot be used; nothing that looks complete is left behind.
    """
    if not os.path.isdir(manual_dir) or not os.listdir(manual_dir):
        raise PizaError(f"manual_dir {manual_dir} is no folder, or empty; give the one that holds SOREC's JSON files")
    config = tfds.download.DownloadConfig(manual_dir=os.fspath(manual_dir))
    for name in ("photos", "expressions"):
        builder = Sorec(config=name, data_dir=os.fspath(data_dir), allow_missing_images=allow_missing_images)
        builder.download_and_prepare(download_config=config)
    splits = {split: info.num_examples for split, info in builder.info.splits.items()}
    return {split: (splits.get(split, 0), builder.left_out.get(split, 0)) for split in {**splits, **builder.left_out}}


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Build SOREC for TFDS as array_record files.")
    parser.add_argument("--manual_dir", required=True, help="folder with trainS.json ... and SODA-D/rawData/Images")
    parser.add_argument("--data_dir", required=True, help="where the data set is written")
    parser.add_argument("--allow_missing_images", action="store_true", help="leave out records without a photo")
    options = parser.parse_args(arguments)
    try:
        counts = build(options.manual_dir, options.data_dir, options.allow_missing_images)
    except PizaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for split, (kept, left_out) in counts.items():
        print(f"{split}: {kept} expressions" + (f", {left_out} left out for want of their photo" if left_out else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
