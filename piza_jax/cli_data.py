"""The commands ``piza data`` and ``piza doctor``: look at a data set, and check that everything is there."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from piza_jax.errors import PizaError


def add_commands(commands: Any, sources: str) -> None:
    """Add both to the subparsers of ``piza``; ``sources`` says what a checkpoint may be."""
    data = commands.add_parser("data", help="statistics of a data set, and a page of samples to look at")
    data.add_argument("--data_dir", help="TFDS folder of the data set")
    data.add_argument("--dataset", default="sorec", help="sorec (default), sorec_mini, refcoco, own, own/NAME ...")
    data.add_argument("--split", help="split of it, such as val")
    data.add_argument("--annotations", help="JSON file in SOREC's format, instead of --data_dir")
    data.add_argument("--images", help="folder of its photos")
    data.add_argument("--allow_missing_images", action="store_true", help="leave out records without a photo")
    data.add_argument("--preview", metavar="FILE.html", help="write a page with sampled records")
    data.add_argument("--num", type=int, default=24, help="how many records it shows (default 24)")
    data.add_argument("--seed", type=int, default=0, help="of their choice")
    data.add_argument("--max_photos", type=int, default=2000, help="photos looked at for their size; 0: all")
    data.add_argument(
        "--draw", metavar="FILE.jpg", help="draw a street of SOREC-mini, and print what to look for in it"
    )
    data.add_argument("--scene", type=int, default=0, help="which street of the split val (default 0)")
    data.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    data.set_defaults(run=_data)

    doctor = commands.add_parser("doctor", help="check machine, data and checkpoint; exit code 1 if anything failed")
    doctor.add_argument("--data_dir", help="TFDS folder of a data set")
    doctor.add_argument("--dataset", default="sorec", help="data set in it (default: sorec)")
    doctor.add_argument("--manual_dir", help="folder with SOREC's JSON files and SODA-D/rawData/Images")
    doctor.add_argument("--checkpoint", help=sources)
    doctor.add_argument("--tokenizer", help="folder with tokenizer.json or vocab.txt, for sources that ship none")
    doctor.add_argument("--output", default=".", help="where something is to be written (default: here)")
    doctor.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    doctor.set_defaults(run=_doctor)


def _data(options: argparse.Namespace, rest: list[str]) -> None:
    from piza_jax.data import sample_sheet, statistics
    from piza_jax.data.records import RecordSource, read_annotations

    _no_rest(rest, "data")
    if options.draw:
        _draw(options)
        return
    if options.preview:
        sample_sheet.check_page(options.preview)  # before the work, not after it
    source: statistics.ListedSource
    if options.annotations and (options.data_dir or options.split):
        raise PizaError("give either --annotations or --data_dir with --split")
    if options.annotations and options.images:
        title, records = Path(options.annotations).stem, read_annotations(options.annotations)
        source = RecordSource(records, options.images, options.allow_missing_images)
    elif options.data_dir and options.split:
        import tfds_sorec

        title = f"{options.dataset} {options.split}"
        source = tfds_sorec.open_split(options.data_dir, options.split, options.dataset)
    else:
        raise PizaError("say which data: --data_dir=DATA --dataset=NAME --split=NAME, or --annotations with --images")
    found = statistics.measure(source, options.max_photos)
    shown = 0
    if options.preview:
        look = {"title": title, "num": options.num, "seed": options.seed}
        shown = sample_sheet.save_sheet(source, found, options.preview, **look)
    if options.json:
        print(json.dumps(found.to_dict()))
        return
    print(f"{title}: {statistics.text(found)}")
    if shown:
        print(f"\n{options.preview}: {shown} records to look at")


def _draw(options: argparse.Namespace) -> None:
    """A street that no model trained on SOREC-mini has seen."""
    from piza_jax import draw
    from piza_jax.data.world.pictures import make_picture
    from piza_jax.data.world.splits import find_split

    draw.check_path(options.draw)
    picture = make_picture(find_split("val"), options.scene)
    draw.save(picture.draw(), options.draw)
    if options.json:
        found = [{"expression": record.expression, "box": list(record.box_xyxy)} for record in picture.records]
        print(json.dumps({"photo": options.draw, "targets": found}))
        return
    for record in picture.records:
        print(f"{' '.join(f'{side:6.1f}' for side in record.box_xyxy)}  {record.expression}")


def _doctor(options: argparse.Namespace, rest: list[str]) -> int:
    from piza_jax import doctor

    _no_rest(rest, "doctor")
    names = ("data_dir", "dataset", "manual_dir", "checkpoint", "tokenizer", "output")
    checks = doctor.diagnose(**{name: getattr(options, name) for name in names})
    if options.json:
        print(json.dumps({"checks": [check.to_dict() for check in checks]}))
    else:
        print(doctor.text(checks))
    return int(any(check.status == "failed" for check in checks))


def _no_rest(rest: Sequence[str], command: str) -> None:
    if rest:
        raise PizaError(f"unknown argument {rest[0]!r}; see piza {command} --help")
