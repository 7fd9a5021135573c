"""Where the data is looked for, what is there, and what should be."""

import os
from collections.abc import Mapping
from pathlib import Path

from piza_jax.data.decode import open_rgb
from piza_jax.data.records import PHOTO_FOLDER, Record, read_annotations
from piza_jax.data.search import check_box
from piza_jax.doctor.check import Check, attempt
from piza_jax.errors import PizaError

GROUP = "data"
# Expressions of SOREC as published.
SOREC_COUNTS = {"train_s": 10_000, "train_l": 61_369, "val": 10_712, "test_a": 10_815, "test_b": 17_104}
# Where people unpack SODA-D by mistake.
_ELSEWHERE = ("SODA-D/Images", "SODA-D", "rawData/Images", "Images", "")


def built(data_dir: str | os.PathLike[str], dataset: str) -> tuple[list[Check], dict[str, list[Record]]]:
    """Checks of a built data set, and the records of its splits.

    Raises:
        PizaError: an unknown name of a data set.
    """
    import tfds_sorec  # takes seconds to import
    from tfds_sorec.datasets import find_dataset

    about = find_dataset(dataset)
    builders = about.builders(os.fspath(data_dir))
    places = [Path(builder.data_dir) for builder in builders]
    absent = [place for place, builder in zip(places, builders, strict=True) if not builder.info.splits]
    if absent:
        found = f"{about.title} is not built: nothing complete at {' and '.join(map(str, absent))}"
        other = sorted(
            {str(path.parents[1].relative_to(data_dir)) for path in Path(data_dir).glob("*/*/*/features.json")}
        )
        if other:
            found += f"; under {data_dir} there is {', '.join(other)}"
        cure = f"python -m {about.command} --data_dir={data_dir} ... builds it; or give --dataset of what is there"
        return [Check(GROUP, "data set", "failed", found, cure, {"tried": list(map(str, places))})], {}
    checks = [Check(GROUP, "data set", "ok", f"{about.title} at {places[0]}, photos at {places[1]}")]
    sources = {split: tfds_sorec.open_split(data_dir, split, dataset) for split in builders[0].info.splits}
    records = {split: source.listed() for split, source in sources.items()}
    checks.append(_counts({split: len(listed) for split, listed in records.items()}, dataset == "sorec", "splits"))
    for split, source in sources.items():
        for index in (0, len(source) - 1):
            try:
                item = source[index]
                check_box(item["box_xyxy"], open_rgb(item["image"], item["name"]).size)
            except PizaError as error:
                cure = f"remove {places[0]} and {places[1]} and build again"
                checks.append(Check(GROUP, f"record {index} of {split}", "failed", str(error), cure))
    if len(checks) == 2:
        checks.append(Check(GROUP, "records", "ok", "first and last of each split have their photo, the box inside"))
    return checks, records


def _counts(found: Mapping[str, int], sorec: bool, name: str) -> Check:
    """The numbers of expressions by split, against the published ones for SOREC."""
    values = {"found": dict(found), "expected": SOREC_COUNTS if sorec else {}}
    listed = ", ".join(f"{split} {number:,}" for split, number in found.items())
    if not sorec:
        return Check(GROUP, name, "ok", listed, values=values)
    other = [
        f"{split} has {found[split]:,}, published are {number:,}"
        for split, number in SOREC_COUNTS.items()
        if split in found and found[split] != number
    ]
    other += [f"there is no {split} ({number:,})" for split, number in SOREC_COUNTS.items() if split not in found]
    if not other:
        return Check(GROUP, name, "ok", f"{listed}, as published", values=values)
    cure = "fetch the annotations that are absent, or the photos if some were left out, and build again"
    return Check(GROUP, name, "warning", "; ".join(other), cure, values)


def raw(manual_dir: str | os.PathLike[str]) -> tuple[list[Check], dict[str, list[Record]]]:
    """Checks of the folder with SOREC's annotations and SODA-D's photos, and the records by split."""
    from tfds_sorec.sorec.sorec_dataset_builder import SPLIT_FILES

    folder, checks = Path(manual_dir), []
    if not folder.is_dir():
        cure = "give the folder that holds SOREC's JSON files"
        return [Check(GROUP, "raw data", "failed", f"there is no folder {folder}", cure)], {}
    records: dict[str, list[Record]] = {}
    for split, file in SPLIT_FILES.items():
        if (folder / file).is_file():
            bad = attempt(GROUP, file, lambda split=split, file=file: _read(folder / file, split, records))  # type: ignore[misc]
            checks += bad
    if not records and not checks:
        found = f"none of {', '.join(SPLIT_FILES.values())} is in {folder}"
        return [Check(GROUP, "annotations", "failed", found, "fetch them from SOREC's home page")], {}
    if records:
        checks.append(_counts({split: len(listed) for split, listed in records.items()}, True, "annotations"))
        checks.append(_photos(folder, records))
    return checks, records


def _read(path: Path, split: str, records: dict[str, list[Record]]) -> list[Check]:
    records[split] = read_annotations(path)
    return []


def _photos(folder: Path, records: Mapping[str, list[Record]]) -> Check:
    names = sorted({record.image for listed in records.values() for record in listed})
    place = folder / PHOTO_FOLDER
    present = set(os.listdir(place)) if place.is_dir() else set()
    absent = [name for name in names if name not in present]
    values = {"tried": str(place), "needed": len(names), "missing": len(absent), "first_missing": absent[:5]}
    if not absent:
        return Check(GROUP, "photos", "ok", f"all {len(names):,} photos are at {place}", values=values)
    near = next((folder / name for name in _ELSEWHERE if (folder / name / absent[0]).is_file()), None)
    if near is not None:
        cure = f"they lie at {near}; move them to {place}, or link it"
    elif present:
        cure = "fetch the rest of SODA-D from its home page, or build with --allow_missing_images without them"
    else:
        cure = f"fetch SODA-D from its home page and unpack it so that its photos lie at {place}"
    more = " ..." if len(absent) > 5 else ""
    where = place if place.is_dir() else f"{place}, which is no folder"
    found = f"{len(absent):,} of {len(names):,} are not at {where}: {', '.join(absent[:5])}{more}"
    return Check(GROUP, "photos", "failed", found, cure, values)
