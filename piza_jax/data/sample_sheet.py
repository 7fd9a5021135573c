"""A page to look at a data set: sampled records with photo, target and words, in one HTML file of its own."""

import base64
import html
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from piza_jax.data.decode import open_rgb
from piza_jax.data.records import Record
from piza_jax.data.statistics import ListedSource, Statistics, area_percent
from piza_jax.errors import PizaError

_PHOTO_PX, _CROP_PX = 720, 360  # pictures in the page, about twice the size at which they are shown
_RING_PX = 22  # targets smaller than this in the shown photo get a ring around them
_MARK, _HALO = (255, 45, 120), (255, 255, 255)

_STYLE = """
:root { color-scheme: light dark; --page: #f6f6f4; --card: #fff; --ink: #1c1d1f; --faint: #63666b; --line: #deded9;
  --bar: #2f6fb2; }
@media (prefers-color-scheme: dark) { :root { --page: #131416; --card: #1d1f22; --ink: #ececea; --faint: #a0a4aa;
  --line: #34373c; --bar: #6ba6e0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1320px; padding: 28px 24px 60px; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 26px; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 14px; margin: 0 0 10px; color: var(--faint); font-weight: 600; }
.under { color: var(--faint); margin: 0 0 22px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; margin-bottom: 12px; }
.tile, .chart, .card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px; }
.tile b { display: block; font-size: 22px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile small { color: var(--faint); display: block; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 12px; margin-bottom: 26px; }
.row { display: grid; grid-template-columns: 104px 1fr 62px; gap: 10px; align-items: center; font-size: 13px; }
.row span { color: var(--faint); text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.row i { display: block; height: 13px; border-radius: 0 3px 3px 0; background: var(--bar); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(560px, 100%), 1fr)); gap: 16px; }
.card { display: flex; flex-direction: column; padding: 0; overflow: hidden; }
.pictures { display: grid; grid-template-columns: 1fr 240px; gap: 2px; height: 240px; background: var(--line); }
.pictures div { background: var(--page); display: flex; align-items: center; justify-content: center; min-width: 0; }
.pictures img { display: block; max-width: 100%; max-height: 240px; }
.card p { margin: 12px 16px 6px; font-size: 16px; overflow-wrap: anywhere; }
.card dl { margin: auto 16px 14px; display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 13px; color: var(--faint);
  font-variant-numeric: tabular-nums; }
dt { display: inline; } dd { display: inline; margin: 0; color: var(--ink); overflow-wrap: anywhere; }
@media (max-width: 560px) { .pictures { grid-template-columns: 1fr; height: auto; } }
"""


def save_sheet(
    source: ListedSource,
    found: Statistics,
    path: str | os.PathLike[str],
    *,
    title: str,
    num: int = 24,
    seed: int = 0,
) -> int:
    """Write the page; it holds everything itself and asks for nothing from a network.

    Args:
        source: the records.
        found: of statistics.measure.
        path: a file ending in .html or .htm, in a folder that is there.
        title: what the data set is called.
        num: most records to show, on as many different photos as there are.
        seed: of their choice.

    Returns:
        The number of records shown.

    Raises:
        PizaError: a path that cannot be written, a num below 1, or a photo that cannot be decoded.
    """
    path = check_page(path)
    records = source.listed()
    chosen = choose(records, num, seed)
    cards = [_card(records[index], open_rgb(source[index]["image"], records[index].image)) for index in chosen]
    page = _page(title, found, cards, seed)
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise PizaError(f"cannot write {path}: {error}") from error
    return len(cards)


def check_page(path: str | os.PathLike[str]) -> Path:
    """The path of a page; PizaError if it cannot be one, before any work is done for it."""
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise PizaError(f"the page {path} must end in .html")
    if not path.parent.is_dir():
        raise PizaError(f"there is no folder {path.parent} for {path.name}; make it first")
    return path


def choose(records: Sequence[Record], num: int, seed: int) -> list[int]:
    """Ascending indices of at most ``num`` records, the first ones drawn on photos that all differ."""
    if num < 1:
        raise PizaError(f"num is {num}; it must be at least 1")
    if seed < 0:
        raise PizaError(f"the seed is {seed}; it must be at least 0")
    order = [int(index) for index in np.random.default_rng(seed).permutation(len(records))]
    first: dict[str, int] = {}
    for index in order:
        first.setdefault(records[index].image, index)
    fresh = set(first.values())
    return sorted(sorted(order, key=lambda index: index not in fresh)[:num])


def mark_photo(photo: Image.Image, box_xyxy: Sequence[float], longest: int = _PHOTO_PX) -> Image.Image:
    """The photo no longer than ``longest`` pixels, with its target's box, and a ring around it where that is small."""
    factor = min(longest / max(photo.size), 1.0)
    size = (max(round(photo.width * factor), 1), max(round(photo.height * factor), 1))
    small = photo.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    box = [side * factor for side in box_xyxy]
    pen = ImageDraw.Draw(small)
    _frame(pen, box)
    if max(box[2] - box[0], box[3] - box[1]) < _RING_PX:
        across, down, radius = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, float(_RING_PX)
        for colour, width, grow in ((_HALO, 7, 2), (_MARK, 3, 0)):
            reach = radius + grow
            pen.ellipse((across - reach, down - reach, across + reach, down + reach), outline=colour, width=width)
    return small


def crop_target(photo: Image.Image, box_xyxy: Sequence[float], side: int = _CROP_PX) -> Image.Image:
    """A square of ``side`` pixels: the target with four times its length around it, shifted into the photo."""
    x0, y0, x1, y1 = box_xyxy
    reach = min(max(4 * max(x1 - x0, y1 - y0), 64.0), max(photo.size))
    left = min(max((x0 + x1 - reach) / 2, 0.0), max(photo.width - reach, 0.0))
    top = min(max((y0 + y1 - reach) / 2, 0.0), max(photo.height - reach, 0.0))
    inside = (left, top, min(left + reach, photo.width), min(top + reach, photo.height))
    factor = side / reach
    size = (max(round((inside[2] - left) * factor), 1), max(round((inside[3] - top) * factor), 1))
    crop = photo.resize(size, Image.Resampling.BICUBIC, box=inside)
    shifted = [(value - start) * factor for value, start in zip(box_xyxy, (left, top, left, top), strict=True)]
    _frame(ImageDraw.Draw(crop), shifted)
    return crop


def _frame(pen: ImageDraw.ImageDraw, box: Sequence[float]) -> None:
    """A box around a target, not over it, so that nothing of a small one is hidden."""
    x0, y0, x1, y1 = box
    for grow, colour, width in ((5, _HALO, 2), (4, _MARK, 3)):
        pen.rectangle((x0 - grow, y0 - grow, x1 + grow, y1 + grow), outline=colour, width=width)


def _card(record: Record, photo: Image.Image) -> str:
    x0, y0, x1, y1 = record.box_xyxy
    facts = {
        "id": str(record.id),
        "photo": f"{record.image} ({photo.width} x {photo.height})",
        "box": f"{x0:g} {y0:g} {x1:g} {y1:g}",
        "size": f"{x1 - x0:g} x {y1 - y0:g} px, {area_percent(record, photo.size):.2g}%",
    }
    listed = "".join(f"<div><dt>{name}</dt> <dd>{html.escape(value)}</dd></div>" for name, value in facts.items())
    pictures = (
        f'<div><img alt="photo with its target" src="{_data(mark_photo(photo, record.box_xyxy))}"></div>'
        f'<div><img alt="the target from near by" src="{_data(crop_target(photo, record.box_xyxy))}"></div>'
    )
    words = html.escape(record.expression)
    return f'<article class="card"><div class="pictures">{pictures}</div><p>{words}</p><dl>{listed}</dl></article>'


def _data(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _page(title: str, found: Statistics, cards: Sequence[str], seed: int) -> str:
    tiles = [
        (f"{found.expressions:,}", "expressions", f"{found.repeated_boxes:,} on a box named before"),
        (f"{found.photos:,}", "photos", f"{found.expressions_per_photo['mean']:.3g} expressions on each"),
        (f"{found.words['mean']:.3g}", "words an expression", _range(found.words, "")),
        (f"{found.side_px['median']:.3g} px", "target side, median", _range(found.side_px, " px")),
    ]
    if found.area_percent:
        looked = "" if found.photos_read == found.photos else f", {found.photos_read:,} photos"
        area = f"{found.area_percent['median']:.2g}%"
        tiles.append((area, "of the photo, median", _range(found.area_percent, "%") + looked))
    told = "".join(f'<div class="tile"><b>{one}</b>{two}<small>{three}</small></div>' for one, two, three in tiles)
    charts = _chart("Target side (root of the area)", found.side_counts)
    charts += _chart("Expression length", found.word_counts)
    name = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}: samples</title><style>{_STYLE}</style></head><body>"
        f'<h1>{name}</h1><p class="under">{len(cards)} of {found.expressions:,} records, drawn with seed {seed}. Left: '
        "the whole photo; right: the target from near by. Boxes are x0 y0 x1 y1 in pixels of the photo.</p>"
        f'<section class="tiles">{told}</section><section class="charts">{charts}</section>'
        f'<main class="cards">{"".join(cards)}</main></body></html>\n'
    )


def _range(spread: Mapping[str, float], unit: str) -> str:
    return f"90% in {spread['p5']:.2g} to {spread['p95']:.2g}{unit}"


def _chart(title: str, counts: Mapping[str, int]) -> str:
    most = max(counts.values())
    rows = "".join(
        f'<div class="row"><span>{html.escape(name)}</span><i style="width:{100 * number / most:.1f}%"></i>'
        f"<span>{number:,}</span></div>"
        for name, number in counts.items()
    )
    return f'<div class="chart"><h2>{title}</h2>{rows}</div>'
