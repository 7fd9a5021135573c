"""Draw and build SOREC-mini without TensorFlow: ``python -m tfds_sorec.build_mini --data_dir=DIR``."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from piza_jax.errors import PizaError
from tfds_sorec.sorec_mini.sorec_mini_dataset_builder import SorecMini

VARIANTS = ("small", "normal")


def build(
    data_dir: str | os.PathLike[str],
    scale: float = 1.0,
    variants: Sequence[str] = VARIANTS,
    scenes: Mapping[str, int] | None = None,
    workers: int | None = None,
) -> dict[str, dict[str, int]]:
    """Build both configurations of each variant; one that is complete stays as it is.

    Args:
        data_dir: where the data set is written.
        scale: number of scenes over the default one, in each split.
        variants: "small", "normal" or both.
        scenes: split -> number of scenes, instead of scale; for one variant.
        workers: number of processes that draw; None takes one for each core.

    Returns:
        Variant -> split -> number of expressions.

    Raises:
        PizaError: sizes that cannot be built, or a data set of another size in data_dir.
    """
    counts = {}
    for variant in variants:
        for name in (variant, f"{variant}_photos"):
            builder = SorecMini(config=name, data_dir=os.fspath(data_dir), scale=scale, scenes=scenes, workers=workers)
            wanted = builder.wanted_scenes
            builder.download_and_prepare()
            built = dict(builder.info.metadata["scenes"])
            if built != wanted:
                raise PizaError(
                    f"the data set {builder.data_dir} has scenes {built}, not {wanted}; remove it, or build elsewhere"
                )
            if name == variant:
                counts[variant] = {split: info.num_examples for split, info in builder.info.splits.items()}
    return counts


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Draw SOREC-mini and write it for TFDS as array_record files.")
    parser.add_argument("--data_dir", required=True, help="where the data set is written")
    parser.add_argument("--scale", type=float, default=1.0, help="number of scenes over the default one")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, help="both by default")
    parser.add_argument(
        "--scenes", nargs="+", type=_split_and_number, metavar="SPLIT=N", help="of one variant, instead of --scale"
    )
    parser.add_argument("--workers", type=int, help="processes that draw; one for each core by default")
    options = parser.parse_args(arguments)
    try:
        scenes = dict(options.scenes) if options.scenes else None
        if scenes and len(options.variants) != 1:
            raise PizaError("--scenes is for one variant; add --variants=small or --variants=normal")
        counts = build(options.data_dir, options.scale, options.variants, scenes, options.workers)
    except PizaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for variant, splits in counts.items():
        for split, number in splits.items():
            print(f"{variant} {split}: {number} expressions")
    return 0


def _split_and_number(text: str) -> tuple[str, int]:
    split, _, number = text.partition("=")
    if not split or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not SPLIT=NUMBER, such as train_s=300")
    return split, int(number)


if __name__ == "__main__":
    sys.exit(main())
