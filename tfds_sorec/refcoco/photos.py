"""COCO's photos, wherever the folders of people have them."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from piza_jax.errors import PizaError

# Below the folder that is given; the later releases of COCO have the same photos under shorter names.
FOLDERS = ("train2014", "images/train2014", "coco/train2014", "images/mscoco/images/train2014", "images", "")
_LATER = tuple(folder.replace("train2014", name) for name in ("train2017", "val2017") for folder in FOLDERS[:3])


def find_photos(names: Iterable[str], folder: Path, allow_missing: bool = False) -> dict[str, Path]:
    """Photo name, such as COCO_train2014_000000581857.jpg -> its file, for those that are there.

    Raises:
        PizaError: if photos are absent and that is not allowed, or none is there: how many, the first names, and the
            folders that were looked into.
    """
    wanted = sorted(set(names))
    held = {place: set(os.listdir(place)) for name in FOLDERS + _LATER if (place := folder / name).is_dir()}
    found: dict[str, Path] = {}
    for name in wanted:
        short = re.sub(r"^COCO_(train|val)2014_", "", name)
        for called in dict.fromkeys((name, short)):
            if places := [place for place, files in held.items() if called in files]:
                found[name] = places[0] / called
                break
    absent = [name for name in wanted if name not in found]
    if absent and not (allow_missing and found):
        tried = ", ".join(f"{folder / name}" for name in dict.fromkeys(FOLDERS + _LATER))
        raise PizaError(
            f"{len(absent)} of {len(wanted)} photos are missing: {', '.join(absent[:5])}"
            f"{' ...' if len(absent) > 5 else ''}; put COCO's train2014 photos into one of {tried}, or allow missing "
            "images to leave the expressions of some out"
        )
    return found
