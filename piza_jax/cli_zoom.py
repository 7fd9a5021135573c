"""How to zoom, as options of the commands: those of ``piza ground``, ``evaluate``, ``export`` and others."""

import argparse

# Those that are fields of ZoomConfig.
OPTIONS = (
    "max_steps",
    "stop_threshold",
    "beam",
    "path_score",
    "nms_iou",
    "backtrack",
    "look_back",
    "margin",
    "score_layers",
    "last_look",
    "no_target_threshold",
)


def add_options(command: argparse.ArgumentParser) -> None:
    """Add them to a command."""
    command.add_argument("--zoom", help="options below from a file of piza tune; those given here come first")
    command.add_argument("--max_steps", type=int, help="most zoom steps (default: as trained)")
    command.add_argument("--stop_threshold", type=float, help="stop probability that ends a zoom (default: as trained)")
    command.add_argument("--beam", type=int, help="paths to follow at once (default 1: the best box only)")
    command.add_argument("--path_score", help="what paths are compared by: mean_log (default), product, last or learnt")
    command.add_argument("--nms_iou", type=float, help="overlap above which two boxes are one place (default 0.5)")
    command.add_argument("--backtrack", type=float, help="turn back where the score falls below this part of the last")
    command.add_argument(
        "--look_back",
        type=_sides,
        help="look for the ends of several paths again in wider views, of these sides over the photo's: 0.5,0.35",
    )
    command.add_argument("--margin", type=float, help="crops so many times wider than the box found (default 1)")
    command.add_argument("--score_layers", type=int, help="average the scores of so many decoder layers (default 1)")
    command.add_argument(
        "--last_look", type=float, help="look once more at the end, in a view of so many sides of the box; 0: do not"
    )
    command.add_argument("--no_target_threshold", type=float, help="least path score of a target (default 0)")
    command.add_argument("--training_free", action="store_true", help="zoom by rule, without the PIZA weights")
    command.add_argument("--single_pass", action="store_true", help="look once at the whole photo instead of zooming")


def _sides(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(side) for side in text.split(",") if side)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} are no sides; give parts of the photo's, such as 0.5,0.35"
        ) from error
