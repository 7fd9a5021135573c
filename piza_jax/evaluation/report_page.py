"""The report as one HTML page that needs nothing else: style, charts and pictures are inside, and there is no script.

Expressions, names of photos and of splits come from files of unknown origin; every one of them is escaped.
"""

import base64
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from piza_jax.errors import PizaError
from piza_jax.evaluation import curve as curves
from piza_jax.evaluation import report_charts
from piza_jax.evaluation.bootstrap import HEADLINE
from piza_jax.evaluation.failures import FAILURES, STEPS_UNKNOWN
from piza_jax.evaluation.metrics import ALL
from piza_jax.evaluation.report_cases import Case, Section, choose, strip_uri
from piza_jax.evaluation.report_style import STYLE
from piza_jax.evaluation.report_text import cell, measures_of
from piza_jax.evaluation.save import make_folder, save_text

STRIPS = 4  # of each kind

_NAMES = {"mAcc": "mAcc %", "Acc50": "Acc50 %", "Acc75": "Acc75 %", "mean_iou": "mean IoU %"}
_KINDS = {
    "best": "Best answers",
    "worst": "Worst answers, those with the highest score first",
    "random": "Answers drawn at random",
}
# A browser loads nothing from elsewhere and runs nothing, whatever the page holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Curve(NamedTuple):
    """Points of ``curve.sweep``, and the split that they were measured on."""

    points: Sequence[curves.Point]
    split: str


def save_page(
    sections: Sequence[Section], folder: str | os.PathLike[str], seed: int = 0, curve: Curve | None = None
) -> Path:
    """Write index.html into a folder, which is made if it is missing; gives the path.

    Args:
        sections: what to report, at least one.
        folder: where to.
        seed: of the choice of random answers.
        curve: accuracy against cost, if that was measured.

    Raises:
        PizaError: a folder that cannot be made or written.
    """
    make_folder(folder)
    path = Path(folder) / "index.html"
    save_text(page(sections, seed, curve), path)
    return path


def page(sections: Sequence[Section], seed: int = 0, curve: Curve | None = None) -> str:
    """The whole page; arguments as ``save_page``."""
    title = f"Grounding of {', '.join(section.name for section in sections)}"
    names = [f'<a href="#part{number}">{escape(section.name)}</a>' for number, section in enumerate(sections)]
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>",
        "<h1>Evaluation of grounding</h1>",
        f"<nav>{''.join(names)}</nav>" if len(names) > 1 else "",
        _headline(sections),
        _curve(curve) if curve else "",
        *(_section(number, section, seed) for number, section in enumerate(sections)),
        "</main></body></html>",
    ]
    return "\n".join(part for part in parts if part)


def _headline(sections: Sequence[Section]) -> str:
    head = ["", *_NAMES.values(), "steps", "views", "records"]
    body = []
    for section in sections:
        values = section.score.details[ALL][ALL] or {}
        cells = [f"<th scope=row>{escape(section.name)}</th>"]
        for name in HEADLINE:
            low, high = (cell(end, 100, 1) for end in section.score.intervals[name])
            cells.append(f"<td><b>{cell(values[name], 100, 1)}</b><small>{low} to {high}</small></td>")
        last = [cell(values["mean_steps"], 1, 2), cell(_mean_views(section), 1, 2), cell(values["count"], 1, 0)]
        cells += [f"<td>{text}</td>" for text in last]
        body.append("".join(cells))
    note = (
        "mAcc is the mean share of right boxes over IoU 0.50 to 0.95, Acc50 and Acc75 the shares at 0.5 and 0.75. "
        "Below each number stands its 95% confidence interval, from resampling the records. Views are those that the "
        "detector saw of a photo: slices, or the steps of all paths of a zoom."
    )
    return f"{_table(head, body)}<p class=note>{note}</p>"


def _mean_views(section: Section) -> float | None:
    """Of the answers that say how they were found."""
    views = [case.answer.grounding.passes or case.answer.num_steps for case in section.cases]
    known = [number for number in views if number]
    return sum(known) / len(known) if known else None


def _curve(curve: Curve) -> str:
    encoded = base64.b64encode(curves.figure(curve.points, curve.split).encode()).decode()
    figure = f'<img class=plot src="data:image/svg+xml;base64,{encoded}" alt="Accuracy against time">'
    body = []
    for point in curve.points:
        name, *rest = curves.cells(point)
        body.append(f"<th scope=row>{escape(name)}</th>{''.join(f'<td>{escape(text)}</td>' for text in rest)}")
    table = _table(curves.header(curve.points), body)
    head = f"<h2>Accuracy against cost</h2><figure class=card>{figure}</figure>"
    return f"<section>{head}<p></p>{table}<p class=note>{escape(curves.NOTES)}</p></section>"


def _section(number: int, section: Section, seed: int) -> str:
    parts = [f'<section id="part{number}"><h2>{escape(section.name)}</h2>', _charts(section), _groups(section)]
    if section.read_photo is not None:
        parts += [_strips(section, kind, numbers) for kind, numbers in choose(section.cases, STRIPS, seed).items()]
    return "".join([*parts, "</section>"])


def _charts(section: Section) -> str:
    iou = report_charts.iou_bars([case.iou for case in section.cases])
    drawn = [
        _card(
            "Overlap with the target (IoU)",
            report_charts.columns(iou, "Histogram of the overlap", at_edge=True),
            "A box is right from an IoU of 0.5 on.",
        )
    ]
    steps = [case.answer.num_steps for case in section.cases]
    known = sum(number > 0 for number in steps)
    if known:
        bars = report_charts.step_bars(steps)
        note = "" if known == len(steps) else f"Known of {known} of {len(steps)} records."
        drawn.append(_card("Steps of a zoom", report_charts.columns(bars, "Histogram of the number of steps"), note))
    drawn.append(_card("Why answers are wrong", *_failures(section)))
    return f"<div class=charts>{''.join(drawn)}</div>"


def _failures(section: Section) -> tuple[str, str]:
    """Chart and note."""
    score = section.score
    counts = {name: (score.failures or {}).get(name, 0) for name in FAILURES} if score.failures else {}
    if score.without_steps:
        counts[STEPS_UNKNOWN] = score.without_steps
    wrong = sum(counts.values())
    note = f"{wrong} of {len(section.cases)} answers are wrong."
    bars = [report_charts.Bar(name, count, "bad", f"{name}: {count}") for name, count in counts.items()]
    return report_charts.rows(bars, "Wrong answers by their cause") if bars else "", note


def _card(title: str, chart: str, note: str) -> str:
    return f"<figure class=card><h3>{title}</h3>{chart}<figcaption>{note}</figcaption></figure>"


def _groups(section: Section) -> str:
    columns = measures_of([section.score])
    body = []
    for way, groups in section.score.details.items():
        if way != ALL:
            body.append(f'<th scope=rowgroup colspan="{len(columns) + 1}" class=way>by {escape(way)}</th>')
        for group, values in groups.items():
            found = values or {"count": 0}
            cells = "".join(f"<td>{cell(found.get(name), by, places)}</td>" for name, by, places in columns.values())
            body.append(f"<th scope=row>{escape(group)}</th>{cells}")
    return f"<h3>All measures, by group</h3>{_table(['', *columns], body)}"


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    titles = "".join(f"<th scope=col>{escape(title)}</th>" for title in head)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"


def _strips(section: Section, kind: str, numbers: Sequence[int]) -> str:
    figures = "".join(_strip(section, number) for number in numbers)
    return f'<h3>{_KINDS[kind]}</h3><div class="strips {kind}">{figures}</div>'


def _strip(section: Section, number: int) -> str:
    case = section.cases[number]
    assert section.read_photo is not None
    expression = escape(case.answer.grounding.expression)
    try:
        uri = strip_uri(section.read_photo(number), case)
        picture = f'<img src="{uri}" alt="Zoom to: {expression}">'
    except PizaError as error:  # a photo or box of somebody else; the other answers are worth a report all the same
        picture = f"<p class=note>no picture: {escape(str(error))}</p>"
    label = "right" if case.failure is None else case.failure
    badge = f'<span class="badge {"good" if case.failure is None else "bad"}">{escape(label)}</span>'
    words = f"<blockquote>{expression}</blockquote>"
    return f"<figure class=card>{words}<p>{badge} {_facts(case)}</p>{picture}</figure>"


def _facts(case: Case) -> str:
    steps, score = case.answer.num_steps, case.answer.grounding.score
    facts = [f"IoU {case.iou:.2f}"]
    facts += [f"score {score:.2f}"] if score == score else []  # NaN: none was given
    facts += [f"{steps} step{'s' if steps > 1 else ''}"] if steps else []
    facts += [f"record {case.id}", escape(case.photo)]
    return " &middot; ".join(facts)
