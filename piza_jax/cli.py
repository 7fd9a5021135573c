"""The ``piza`` command: train, plan, ground, detect, evaluate, tune, data, doctor, demo, convert, export, version."""

import argparse
import dataclasses
import json
import math
import re
import sys
from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

import piza_jax
from piza_jax import cli_curve, cli_data, cli_demo, cli_examples, cli_export, cli_plan, cli_tune, cli_zoom, shipped
from piza_jax.errors import PizaError

if TYPE_CHECKING:
    from piza_jax.convert.load import Loaded
    from piza_jax.data.pipeline import Source
    from piza_jax.evaluation.metrics import Summary
    from piza_jax.evaluation.report_cases import Section
    from piza_jax.evaluation.report_page import Curve
    from piza_jax.evaluation.scoring import Score
    from piza_jax.results import Grounding


def _train(options: argparse.Namespace, rest: list[str]) -> None:
    from piza_jax import cpu
    from piza_jax.training.config import load_config
    from piza_jax.training.distributed import processes
    from piza_jax.training.task import train

    stray = [word for word in rest if not word.startswith("--config.")]
    if stray:
        raise PizaError(f"unknown argument {stray[0]!r}; settings are given as --config.key=value")
    config = load_config(options.config, rest)
    # A batch that does not divide over so many would not be trained at all.
    cpu.split(math.gcd(config.mesh.get("cpu_devices", 1), config.train.batch_size))
    with processes(options.coordinator, options.num_processes, options.process_id):
        train(config, options.workdir)


def _ground(options: argparse.Namespace, rest: list[str]) -> None:
    from piza_jax import draw, draw_steps

    _no_rest(rest, "ground")
    moving = Path(options.save or "").suffix.lower() == ".gif"
    if options.save:
        (draw_steps.check_gif if moving else draw.check_path)(options.save)  # before the work, not after it
    options.checkpoint = shipped.or_mini(options.checkpoint)
    photo, look = _looker(options)
    found = look(photo, options.expression)
    if moving:
        draw_steps.save_gif(photo, found, options.save)
    elif options.save:
        draw.save(draw.film_strip(photo, found), options.save)
    if options.json:
        print(json.dumps(found.to_dict()))
        return
    for number, step in enumerate(found.steps):
        print(
            f"step {number}: crop {_pixels(step.crop)}  box {_pixels(step.box)}  score {step.score:.3f}  "
            f"progress {step.progress:.2f}  stop {step.stop_probability:.2f}"
        )
    for other in found.alternatives:
        print(f"other: {_pixels(other.box)}  score {other.score:.3f}  path score {other.path_score:.3f}")
    if found.no_target:
        print(f"no target: the path score {found.path_score:.3f} is below the threshold; the best guess is")
    looked = f"  of {found.passes} views" if found.passes > len(found.steps) else ""
    print(f"box (x0 y0 x1 y1 px): {_pixels(found.box)}  score {found.score:.3f}{looked}")


def _looker(options: argparse.Namespace) -> "tuple[Any, Callable[[Any, str], Grounding]]":
    """The photo, and what finds things in it: a zoom that an earlier start has kept, or the model of the options."""
    from piza_jax import kept_zoom
    from piza_jax.data.photos import read_photo

    if options.method or options.single_pass:  # no zoom that could be kept
        grounder = _grounder(options, options.method)
        return grounder.read(options.photo), grounder.ground
    if options.zoom:
        cli_tune.options_of(options.zoom)  # what is wrong with it is told before the photo is read
    photo = read_photo(options.photo, options.orientation)
    size = photo.shape[0], photo.shape[1]
    names = ("checkpoint", "base", "tokenizer", "zoom", "orientation", "training_free", *cli_zoom.OPTIONS)
    place = kept_zoom.place_of({name: getattr(options, name) for name in names}, size)
    if place and (kept := kept_zoom.open_kept(place)):
        return photo, kept
    grounder = _grounder(options, None)
    new = kept_zoom.keep(grounder, place, size, lambda text: print(text, file=sys.stderr)) if place else None
    return photo, new or grounder.ground


def _detect(options: argparse.Namespace, rest: list[str]) -> None:
    from piza_jax import draw, draw_boxes

    _no_rest(rest, "detect")
    if options.save:
        draw.check_path(options.save)
    source = {"base": options.base, "tokenizer": options.tokenizer}
    grounder = piza_jax.load(shipped.or_mini(options.checkpoint), **source, orientation=options.orientation)
    photo = grounder.read(options.photo)
    found = grounder.detect(
        photo,
        options.text,
        box_threshold=options.box_threshold,
        text_threshold=options.text_threshold,
        max_detections=options.max_detections,
    )
    if options.save:
        draw.save(draw_boxes.with_boxes(photo, found), options.save)
    if options.json:
        print(json.dumps(found.to_dict()))
        return
    for label, score, box in zip(found.labels, found.scores, found.boxes, strict=True):
        print(f"box (x0 y0 x1 y1 px): {_pixels(box)}  score {score:.3f}  {label}")
    print(f"{len(found)} boxes above {options.box_threshold:g}")


def _evaluate(options: argparse.Namespace, rest: list[str]) -> None:
    import jax
    from tqdm import tqdm

    from piza_jax import draw
    from piza_jax.data.decode import decode_rgb
    from piza_jax.evaluation import evaluate, metrics, report_cases, save, scoring
    from piza_jax.evaluation.methods import method_of
    from piza_jax.grounder import open_model

    _no_rest(rest, "evaluate")
    cli_curve.check(options)
    for path in (options.output, options.coco):
        if path:
            save.check_folder(path)  # before the work, not after it
    for made in (options.report, options.curve):
        if made:
            save.make_folder(made)
    if options.predictions:
        _score_file(options)
        return
    if not options.checkpoint:
        raise PizaError("say whose answers to evaluate: --checkpoint=MODEL, or --predictions=FILE")
    if options.format != "auto":
        raise PizaError("--format is for the boxes of --predictions; leave it out")
    words: list[str | None] = [method_of(word).word for word in dict.fromkeys(options.method)]
    sources = _sources(options)
    _one_split_for_coco(options, sources)
    if options.curve and len(sources) > 1:
        raise PizaError("a curve is of one split; give --curve with one split at a time")
    folder = Path(options.strips) if options.strips else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    model = open_model(options.checkpoint, base=options.base, tokenizer=options.tokenizer)
    curve = cli_curve.measure(options, sources, model, _grounder) if options.curve else None
    if curve and not options.report:
        return
    groups, listed, scores, sections = {}, {}, {}, []
    for word in words or [None]:
        grounder = _grounder(options, word, model, jax.local_devices())
        for split, source in sources.items():
            name = f"{split} {word}" if word else split
            found: list[evaluate.Prediction] = []
            count = min(options.num_records or len(source), len(source))
            with tqdm(total=count, desc=name, disable=None) as bar:
                for one in evaluate.predictions(grounder, source, count):
                    if folder and len(found) < options.num_strips:
                        photo = decode_rgb(source[one.index]["image"], one.name)
                        strip = draw.film_strip(photo, one.grounding, target_xyxy=one.target)
                        draw.save(strip, folder / f"{re.sub('[ :]', '_', name)}_{one.id}.png")
                    found.append(one)
                    bar.update()
            groups[name] = evaluate.measure(found)
            scores[name] = scoring.score(scoring.of_model(found))
            listed[name] = [one.to_dict() for one in found]
            if options.report:
                sections.append(report_cases.of_model(name, found, scores[name], source))
    _report(options, metrics.summarise(groups), scores, listed, sections, curve)


def _score_file(options: argparse.Namespace) -> None:
    from piza_jax.evaluation import report_cases, save, scoring
    from piza_jax.evaluation.score_file import answers_of_file, no_collection

    needless: tuple[str, ...] = (
        "checkpoint",
        "base",
        "tokenizer",
        "data_dir",
        "dataset",
        "split",
        "num_records",
        "strips",
        "curve",
        "curve_canvases",
        "method",
    )
    needless += ("zoom", "training_free", "single_pass", *cli_zoom.OPTIONS, *(() if options.report else ("images",)))
    given = [name for name in needless if getattr(options, name)]
    if given:
        raise PizaError(f"--predictions needs no model and no photos; leave out --{given[0]}")
    if not options.annotations:
        raise PizaError("--predictions needs --annotations=FILE.json, the records that they answer")
    _one_split_for_coco(options, options.annotations)
    with no_collection():
        splits = answers_of_file(options.predictions, options.annotations, options.format)
        scores = {name: scoring.score([answer for _, answer in pairs]) for name, pairs in splits.items()}
        listed = {}
        if options.output or options.coco:
            listed = {
                name: [save.entry(record.id, answer) for record, answer in pairs] for name, pairs in splits.items()
            }
        sections = []
        if options.report:
            sections = [report_cases.of_file(name, splits[name], one, options.images) for name, one in scores.items()]
        _report(options, scoring.headlines(scores), scores, listed, sections)


def _one_split_for_coco(options: argparse.Namespace, splits: Sized) -> None:
    if options.coco and len(splits) > 1:
        raise PizaError("COCO's results name no split; give --coco with one split at a time")


def _report(
    options: argparse.Namespace,
    summary: "Summary",
    scores: "dict[str, Score]",
    listed: dict,
    sections: "list[Section]",
    curve: "Curve | None" = None,
) -> None:
    """Write what was asked for, and print."""
    from piza_jax.evaluation import metrics, report_page, save
    from piza_jax.evaluation.report_text import details_text

    details = {name: one.to_dict() for name, one in scores.items()}
    listed = {name: save.with_failures(items, scores[name]) for name, items in listed.items()}
    if options.output and Path(options.output).suffix == ".jsonl":
        save.save_json_lines(listed, options.output)
    elif options.output:
        save.save_json({"metrics": summary, "scores": details, "predictions": listed}, options.output)
    if options.coco:
        save.save_coco(next(iter(listed.values())), options.coco)
    if options.report:
        report_page.save_page(sections, options.report, curve=curve)
    if options.json:
        print(json.dumps({"metrics": summary, "scores": details} if options.details else summary))
        return
    print(metrics.table(summary))
    if options.details:
        print(f"\n{details_text(scores)}")


def _sources(options: argparse.Namespace) -> "dict[str, Source]":
    """What to evaluate on, by name: splits, annotation files, or the data that the run was trained on."""
    from ml_collections import ConfigDict

    from piza_jax.training.checkpoint import is_workdir, read_config
    from piza_jax.training.task import open_source

    if options.annotations and not options.images:
        raise PizaError("--annotations needs --images=DIR, the folder of the photos")
    if options.annotations and (options.data_dir or options.dataset or options.split):
        raise PizaError("give either --annotations or --data_dir with --split")
    if is_workdir(options.checkpoint):
        config = read_config(options.checkpoint)
    elif options.annotations or options.split:
        names = ("kind", "data_dir", "split", "annotations", "images")
        config = ConfigDict({"data": {**dict.fromkeys(names, ""), "dataset": "sorec"}})
    else:
        raise PizaError("say what to evaluate on: --annotations with --images, or --data_dir with --split")
    config.unlock()
    if options.annotations:
        config.data.update(kind="files", images=options.images)
    elif options.data_dir or options.dataset or options.split:
        config.data.update(kind="tfds", data_dir=options.data_dir or config.data.data_dir)
        config.data.dataset = options.dataset or config.data.get("dataset", "sorec")
    sources = {}
    key = "annotations" if options.annotations else "split"
    for value in options.annotations or options.split or [config.data[key]]:
        config.data[key] = value
        name = {"tfds": value, "files": Path(config.data.annotations).stem}.get(config.data.kind, config.data.kind)
        sources[name] = open_source(config)
    return sources


def _convert(options: argparse.Namespace, rest: list[str]) -> None:
    from piza_jax.convert import export
    from piza_jax.grounder import open_model

    _no_rest(rest, "convert")
    if options.zoom and options.to == "hugging_face":
        raise PizaError("transformers' format holds no way to zoom; leave out --zoom")
    zoom = cli_tune.plain_options_of(options.zoom) if options.zoom else {}
    if options.base and options.to == "adapter":  # the base is not laid below a whole model, it is held against it
        loaded = _with_zoom(open_model(options.source, tokenizer=options.tokenizer), zoom)
        base = open_model(options.base, tokenizer=options.tokenizer)
        export.save_adapter(loaded, options.target, base, half=options.half)
    else:
        loaded = _with_zoom(open_model(options.source, base=options.base, tokenizer=options.tokenizer), zoom)
        if options.to == "hugging_face":
            if options.half:
                raise PizaError("--half is for piza's own exports; leave it out")
            export.save_hugging_face(loaded, options.target)
        else:
            save = {"piza": export.save_whole, "adapter": export.save_adapter}[options.to]
            save(loaded, options.target, half=options.half)
    for reason in sorted(set(loaded.ignored.values())):
        names = [name for name, why in loaded.ignored.items() if why == reason]
        print(f"left out: {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''} ({reason})")
    if loaded.tokenizer is None:
        print("the source ships no tokenizer; give --tokenizer=DIR, here or when the model is used")
    if options.report:
        from piza_jax.convert import report

        print(report.table(report.against_transformers(loaded, options.source)))
    print(f"{options.target}: {options.to} from {loaded.origin}")


def _with_zoom(loaded: "Loaded", zoom: dict[str, Any]) -> "Loaded":
    from piza_jax.piza.zoom_config import ZoomConfig, changed

    changed(ZoomConfig(**loaded.zoom), **zoom)  # what has no sense is told before anything is written
    return dataclasses.replace(loaded, zoom={**loaded.zoom, **zoom})


def _version(options: argparse.Namespace, rest: list[str]) -> None:
    _no_rest(rest, "version")
    print(piza_jax.__version__)


def _no_rest(rest: Sequence[str], command: str) -> None:
    if rest:
        raise PizaError(f"unknown argument {rest[0]!r}; see piza {command} --help")


def _grounder(
    options: argparse.Namespace, method: str | None, model: "Loaded | None" = None, devices: "list[Any] | None" = None
) -> "piza_jax.Grounder":
    """The model of the options, or one that is open already, looking in the way of the options or of a method."""
    given = cli_tune.options_of(options.zoom) if options.zoom else {}
    fields = (*cli_zoom.OPTIONS, "canvas_hw")  # the latter of a way to look
    given |= {name: value for name in fields if (value := getattr(options, name, None)) is not None}
    size = {name: getattr(options, name) for name in ("batch_size", "orientation") if name in options}
    source = {"base": options.base, "tokenizer": options.tokenizer}
    way = {"training_free": True if options.training_free else None, "single_pass": options.single_pass}
    return piza_jax.load(model or options.checkpoint, method=method, devices=devices, **source, **way, **size, **given)


def _pixels(box: Sequence[float]) -> str:
    return " ".join(f"{value:.1f}" for value in box)


_SOURCES = (
    "folder of a training run or of piza convert, transformers folder or hub name, a release's .pth, or piza-mini"
)


_METHODS = (
    "way to look: piza, training_free, single[:SHORT_SIDE], grid:ROWSxCOLUMNS or sliding:SIDE[:OVERLAP], the last two "
    "with :full, :nms or :nmm, such as sliding:1024:0.2:full:nms"
)


def _add_parts(command: argparse.ArgumentParser) -> None:
    command.add_argument("--base", help="the model that an adapter is laid over, any source")
    command.add_argument("--tokenizer", help="folder with tokenizer.json or vocab.txt, for sources that ship none")


def _add_model(command: argparse.ArgumentParser, required: bool = True, default: str = "") -> None:
    command.add_argument("--checkpoint", required=required, help=_SOURCES + default)
    command.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    _add_parts(command)


def _add_zoom_of_model(command: argparse.ArgumentParser) -> None:
    _add_model(command)
    cli_zoom.add_options(command)
    _add_orientation(command)


def _add_orientation(command: argparse.ArgumentParser) -> None:
    turned = "pixels in which boxes count: as stored, as in most data sets (default), or as the EXIF tag turns them"
    command.add_argument("--orientation", choices=("stored", "upright"), default="stored", help=turned)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="piza", description="Find tiny things in huge photos from a sentence.")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train, or go on where the work directory stops")
    train.add_argument("--config", required=True, help="FILE.py[:arg]; single settings as --config.key=value")
    train.add_argument("--workdir", required=True, help="checkpoints, metrics and the tokenizer go here")
    train.add_argument("--coordinator", help="HOST:PORT of process 0, where no cluster says it; with the next two")
    train.add_argument("--num_processes", type=int, help="processes of this run")
    train.add_argument("--process_id", type=int, help="which of them this is, from 0 on")
    train.set_defaults(run=_train)

    cli_plan.add_command(commands)

    ground = commands.add_parser("ground", help="zoom into a photo and print the box")
    ground.add_argument("photo")
    ground.add_argument("expression")
    _add_model(ground, required=False, default=" (default)")
    cli_zoom.add_options(ground)
    ground.add_argument("--method", help=_METHODS)
    ground.add_argument("--save", help="draw the zoom steps into this .png, .jpg or .webp, or the zoom as a .gif")
    _add_orientation(ground)
    ground.set_defaults(run=_ground)

    detect = commands.add_parser("detect", help="print every box that phrases name, in a single pass")
    detect.add_argument("photo")
    detect.add_argument("text", help='phrases with full stops between them, such as "a cat. a remote control."')
    _add_model(detect, required=False, default=" (default)")
    detect.add_argument("--box_threshold", type=float, default=0.25, help="least score of a box")
    detect.add_argument("--text_threshold", type=float, default=0.25, help="least score of a word in a label")
    detect.add_argument("--max_detections", type=int, help="keep only so many, the best (default: all)")
    detect.add_argument("--save", help="draw the boxes into this .png, .jpg or .webp")
    _add_orientation(detect)
    detect.set_defaults(run=_detect)

    evaluate = commands.add_parser("evaluate", help="mAcc, Acc50, Acc75, IoU and steps, by split and target size")
    _add_model(evaluate, required=False)
    cli_zoom.add_options(evaluate)
    evaluate.add_argument("--method", action="append", default=[], help=f"{_METHODS}; may be given more than once")
    evaluate.add_argument("--data_dir", help="TFDS folder of SOREC (default: the data that the run was trained on)")
    evaluate.add_argument("--dataset", help="data set in it, such as refcoco (default: that of the run, or sorec)")
    evaluate.add_argument("--split", action="append", help="split of it, such as val; may be given more than once")
    evaluate.add_argument("--annotations", action="append", help="JSON file in SOREC's format, instead of --data_dir")
    evaluate.add_argument("--images", default="", help="folder of its photos; with --predictions: for --report")
    evaluate.add_argument("--num_records", type=int, default=0, help="evenly spread over the split; 0: all")
    evaluate.add_argument(
        "--batch_size", type=int, default=8, help="records of a run, shared by all devices here (default 8)"
    )
    evaluate.add_argument("--output", help="write every number and prediction to this JSON file (.jsonl: predictions)")
    evaluate.add_argument("--coco", help="write the predictions of the one split as COCO results to this JSON file")
    evaluate.add_argument("--details", action="store_true", help="all measures and groups, intervals, failures")
    evaluate.add_argument("--report", help="write one HTML page with charts and film strips into this folder")
    cli_curve.add_options(evaluate)
    evaluate.add_argument("--predictions", help="score this file, of JSON lines or in COCO's form, instead of a model")
    evaluate.add_argument("--format", choices=("auto", "xyxy", "xywh"), default="auto", help="boxes of --predictions")
    evaluate.add_argument("--strips", help="draw the zooms of the first records into this folder")
    evaluate.add_argument("--num_strips", type=int, default=8, help="how many, of each split")
    evaluate.set_defaults(run=_evaluate)

    cli_data.add_commands(commands, _SOURCES)
    cli_tune.add_command(commands, _add_model, _sources)
    cli_demo.add_command(commands, _SOURCES)

    convert = commands.add_parser("convert", help="weights of any source to an export of piza or to transformers")
    convert.add_argument("source", help=_SOURCES)
    convert.add_argument("target", help="new folder")
    convert.add_argument("--to", choices=("piza", "adapter", "hugging_face"), default="piza", help="default: piza")
    _add_parts(convert)
    convert.add_argument("--half", action="store_true", help="store the weights in float16")
    convert.add_argument("--zoom", help="a file of piza tune: how the model zooms from then on")
    convert.add_argument("--report", action="store_true", help="compare a forward pass with transformers, by stage")
    convert.set_defaults(run=_convert)

    cli_export.add_command(commands, _add_zoom_of_model, _grounder)

    commands.add_parser("version", help="print the version").set_defaults(run=_version)
    cli_examples.add_examples(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; a mistake of the user is one line on stderr and exit code 2, Ctrl-C one line and 130."""
    parser = _parser()
    cli_examples.complete(parser)
    options, rest = parser.parse_known_args(arguments)
    try:
        return options.run(options, rest) or 0
    except PizaError as error:
        print(f"piza: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("piza: interrupted", file=sys.stderr)
        return 130


def program() -> None:
    """The command line as a program of its own, which keeps what it compiles for its next start."""
    from piza_jax import compile_cache, cpu, garbage

    garbage.collect_seldom()
    compile_cache.enable()
    if sys.argv[1:2] == ["train"]:
        cpu.keep_memory()
    sys.exit(main())


if __name__ == "__main__":
    program()
