"""The command ``piza tune``: choose how to zoom by the results on a validation split, and write it to a file."""

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from piza_jax.errors import PizaError

Sources = Callable[[argparse.Namespace], Mapping[str, Any]]


def add_command(commands: Any, add_model: Callable[[Any], None], sources: Sources) -> None:
    """Add it to the subparsers of ``piza``.

    Args:
        commands: the subparsers.
        add_model: adds the options that say which model.
        sources: opens the data that the options name, by split.
    """
    tune = commands.add_parser("tune", help="choose beam, path score, stop and no-target thresholds on a split")
    add_model(tune)
    tune.add_argument("--data_dir", help="TFDS folder (default: the data that the run was trained on)")
    tune.add_argument("--dataset", help="data set in it (default: that of the run, or sorec)")
    tune.add_argument("--split", action="append", help="split to choose by (default: val)")
    tune.add_argument("--annotations", action="append", help="JSON file in SOREC's format, instead of --data_dir")
    tune.add_argument("--images", default="", help="folder of its photos")
    tune.add_argument("--num_records", type=int, default=0, help="evenly spread over the split; 0: all")
    tune.add_argument("--batch_size", type=int, default=8)
    tune.add_argument("--max_steps", type=int, help="most zoom steps (default: as trained)")
    tune.add_argument("--beams", type=int, nargs="+", help="numbers of paths to try (default: 1 3)")
    tune.add_argument("--stops", type=float, nargs="+", help="stop thresholds to try (default: 0.5 0.95)")
    tune.add_argument("--backtracks", type=float, nargs="+", help="parts to turn back below (default: 0 0.5)")
    tune.add_argument(
        "--seed", type=int, default=0, help="decides which photos a path score is learnt from (default 0)"
    )
    tune.add_argument("--output", required=True, help="JSON file, for --zoom of piza ground and piza evaluate")
    tune.set_defaults(run=lambda options, rest: _tune(options, rest, sources))


def options_of(path: str) -> dict[str, Any]:
    """Fields of ZoomConfig that ``piza tune`` wrote. PizaError for a file that is not its own."""
    from piza_jax.piza.learnt import as_learnt

    zoom = plain_options_of(path)
    try:
        return {**zoom, "learnt": as_learnt(zoom.get("learnt"))}
    except PizaError as error:
        raise PizaError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise PizaError(f"{path} is not a file of piza tune --output") from error


def plain_options_of(path: str) -> dict[str, Any]:
    """The same as they are in the file, ready for JSON."""
    try:
        with open(path, encoding="utf-8") as file:
            return dict(json.load(file)["zoom"])
    except OSError as error:
        raise PizaError(f"cannot read {path}: {error.strerror}; --zoom takes a file of piza tune --output") from error
    except (ValueError, KeyError, TypeError) as error:
        raise PizaError(f"{path} is not a file of piza tune --output") from error


def _tune(options: argparse.Namespace, rest: list[str], sources: Sources) -> None:
    import jax

    import piza_jax
    from piza_jax.evaluation import save, tune
    from piza_jax.grounder import open_model

    if rest:
        raise PizaError(f"unknown argument {rest[0]!r}; see piza tune --help")
    save.check_folder(options.output)
    if not (options.annotations or options.split):
        options.split = ["val"]
    splits = sources(options)
    if len(splits) > 1:
        raise PizaError("a zoom is chosen by one split; give one --split or --annotations")
    ((name, source),) = splits.items()
    model = open_model(options.checkpoint, base=options.base, tokenizer=options.tokenizer)
    fixed = {} if options.max_steps is None else {"max_steps": options.max_steps}

    def open_grounder(zoom: Mapping[str, Any]) -> "piza_jax.Grounder":
        shared = {"batch_size": options.batch_size, "devices": jax.local_devices()}
        return piza_jax.load(model, **shared, **{**fixed, **zoom})

    def report(trial: tune.Trial) -> None:
        if not options.json:
            print(tune.table([trial]).splitlines()[-1], flush=True)

    given = {word: getattr(options, word) for word in ("beams", "stops", "backtracks") if getattr(options, word)}
    trials = tune.search(open_grounder, source, options.num_records, report=report, **given)
    chosen = tune.choose(trials, options.seed)
    absent = tune.absent_scores(open_grounder(chosen.zoom), source, options.num_records)
    threshold = tune.choose_threshold(chosen.scores, absent)
    zoom = {**fixed, **chosen.zoom, "no_target_threshold": threshold.value}
    found = {
        "split": name,
        "zoom": zoom,
        "threshold": dataclasses.asdict(threshold),
        "learnt": chosen.to_dict(),
        "trials": [trial.to_dict() for trial in trials],
    }
    save.save_json(found, options.output)
    if options.json:
        print(json.dumps(found))
        return
    print(f"\n{tune.table(trials)}\n")
    if chosen.lesson is not None and chosen.simple is not None:
        print(
            f"a path score learnt from half of the photos: mAcc {100 * chosen.lesson.accuracy:.1f}% on the "
            f"{chosen.lesson.records} records of the others, the best of the table {100 * chosen.simple:.1f}%; "
            f"{'chosen' if chosen.learnt else 'not chosen'}"
        )
    print(
        f"no target below a path score of {threshold.value:.3f}: {100 * threshold.found:.1f}% of the sentences about "
        f"their own photo are above, {100 * threshold.rejected:.1f}% of those about another below "
        f"(area under the curve {threshold.ranked:.3f})"
    )
    print(f"{options.output}: chosen by {chosen.count} records of {name}, for --zoom={options.output}")
