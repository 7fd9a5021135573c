"""The page itself: fields on the left, the zoom on the right, made with Gradio from local parts only."""

import math
import shutil
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from piza_jax import shipped
from piza_jax.demo.examples import Example
from piza_jax.demo.service import MOST_BEAMS, MOST_STEPS, Answer, Service
from piza_jax.draw import step_colours
from piza_jax.errors import PizaError
from piza_jax.piza.results import Box

TITLE = "PIZA: find tiny things in huge photos"
# Fonts of the reader's machine: a theme's default would be fetched from the network.
THEME = gr.themes.Base(
    primary_hue="orange",
    neutral_hue="slate",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
)
CSS = """
.gradio-container { max-width: 1360px !important; margin: 0 auto; }
#head h1 { font-size: 1.6rem; margin: 0 0 .15rem; } #head p { margin: 0; opacity: .75; }
.answer { padding: .7rem 1rem; border-radius: 8px; border: 1px solid var(--border-color-primary);
  background: var(--background-fill-secondary); }
.answer b { font-size: 1.05rem; }
.answer.bad { border-color: #c4520a; border-left: 5px solid #c4520a; }
.answer p { margin: .15rem 0; overflow-wrap: anywhere; }
table.steps { border-collapse: collapse; width: 100%; margin-top: .5rem; font-variant-numeric: tabular-nums; }
table.steps th, table.steps td { padding: .25rem .6rem; text-align: right; white-space: nowrap; border: 0; }
table.steps th:first-child, table.steps td:first-child { text-align: left; }
table.steps thead th { opacity: .7; font-weight: 600; }
table.steps, table.steps tr, table.steps th, table.steps td { border-color: var(--border-color-primary) !important; }
.swatch { display: inline-block; width: 1em; height: 1em; border-radius: 3px; border: 1px solid #000;
  vertical-align: -.12em; margin-right: .5em; }
.wide { overflow-x: auto; }
#strip img, #boxes img { object-fit: contain; }
"""
_EMPTY = '<div class="answer"><p>Drop a photo, say what to look for, and press <b>Find it</b>.</p></div>'


def build(service: Service, examples: Sequence[Example]) -> gr.Blocks:
    """The page of a service; its results and uploads are files in Gradio's temporary folder."""
    names = list(service.models)
    limits = f" <b>{shipped.MINI} knows drawn streets only, such as those below.</b>" if shipped.MINI in names else ""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.HTML(
            "<h1>Find the thing that is forty pixels wide</h1><p>PIZA zooms into a photo, step by step, "
            f"until the thing that the sentence names fills a tight box.{limits}</p>",
            elem_id="head",
        )
        with gr.Row():
            with gr.Column(scale=5, min_width=340):
                photo = gr.Image(
                    label="Photo",
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "clipboard"],
                    height=330,
                    buttons=["fullscreen"],
                    elem_id="photo",
                )
                _keep_file(photo)
                sentence = gr.Textbox(
                    label="What to look for",
                    placeholder="The yellow cone directly left of the white van.",
                    lines=2,
                    elem_id="sentence",
                )
                with gr.Row():
                    steps = gr.Slider(1, MOST_STEPS, value=5, step=1, label="Most steps", elem_id="steps")
                    beam = gr.Slider(1, MOST_BEAMS, value=1, step=1, label="Beam", elem_id="beam")
                model = gr.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1, elem_id="model")
                button = gr.Button("Find it", variant="primary", elem_id="find")
            with gr.Column(scale=7, min_width=380):
                boxes = gr.Image(
                    label="Boxes, coloured by step",
                    interactive=False,
                    format="png",
                    height=480,
                    buttons=["fullscreen"],
                    elem_id="boxes",
                )
                answer = gr.HTML(_EMPTY, elem_id="answer")
        with gr.Group(visible=False) as found:
            strip = gr.Image(show_label=False, interactive=False, format="png", buttons=["fullscreen"], elem_id="strip")
            with gr.Row():
                kinds = ("Film strip (PNG)", "Moving picture (GIF)", "Numbers (JSON)")
                saves = [
                    gr.DownloadButton(kind, size="md", elem_id=f"save_{place}") for place, kind in enumerate(kinds)
                ]
        outputs = [boxes, answer, found, strip, *saves]

        def find(*values: Any) -> list[Any]:
            return _find(service, *values)

        events = [button.click, sentence.submit]
        for event in events:
            event(
                find,
                [photo, sentence, steps, beam, model],
                outputs,
                concurrency_limit=1,
                concurrency_id="search",
                api_name="find" if event is events[0] else None,
            )
        if examples:
            rows = [[str(one.path), one.sentence] for one in examples]
            gr.Examples(rows, [photo, sentence], label="Drawn streets to try", cache_examples=False)
    return page.queue(max_size=16)


def _keep_file(photo: gr.Image) -> None:
    """Hand over the uploaded file as it is: Gradio would decode it first, before any limit on its pixels."""
    photo.preprocess = lambda payload: payload and payload.path


def _find(service: Service, path: str | None, sentence: str, steps: int, beam: int, model: str) -> list[Any]:
    """Values of all outputs, those of an error if there was one."""
    try:
        found = service.find(path, sentence, steps, beam, model)
    except PizaError as error:
        text = f'<div class="answer bad" role="alert"><b>No search</b><p>{escape(str(error))}</p></div>'
        return [None, text, gr.Group(visible=False), None, None, None, None]
    name = Path(path or "").stem
    saves = [_named(file, name) for file in found[2:]]
    target = service.target(Path(path or "").name, found.grounding.expression)
    return [str(found.boxes), answer_html(found, target), gr.Group(visible=True), str(found.strip), *saves]


def _named(file: Path, photo: str) -> str:
    """A copy beside the file that is downloaded under the photo's name."""
    copy = file.with_name(f"{photo[:60]}_{file.name}")
    shutil.copyfile(file, copy)
    return str(copy)


def answer_html(answer: Answer, target: Box | None = None) -> str:
    """The box and a row for each step; every text from outside is escaped."""
    found = answer.grounding
    steps = found.steps
    head = "Nothing like that seems to be here; the best guess is" if found.no_target else "Found at"
    box = ", ".join(f"{side:.0f}" for side in found.box)
    wide, high = found.box[2] - found.box[0], found.box[3] - found.box[1]
    facts = f"{wide:.0f} x {high:.0f} px, score {found.score:.2f}, {len(steps)} step{'s' if len(steps) > 1 else ''}"
    rows = []
    for number, (step, colour) in enumerate(zip(steps, step_colours(len(steps)), strict=True), 1):
        crop = f"{step.crop[2] - step.crop[0]:.0f} x {step.crop[3] - step.crop[1]:.0f}"
        values = (step.score, step.progress, step.stop_probability)
        cells = "".join(f"<td>{'-' if math.isnan(value) else f'{value:.2f}'}</td>" for value in values)
        swatch = f'<span class="swatch" style="background:rgb{colour}"></span>'
        rows.append(f"<tr><td>{swatch}{number}</td><td>{crop}</td>{cells}</tr>")
    titles = "".join(f"<th>{name}</th>" for name in ("step", "looked at, px", "score", "progress", "stop"))
    table = f'<table class="steps"><thead><tr>{titles}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    others = [f"other path: score {one.score:.2f}, path score {one.path_score:.2f}" for one in found.alternatives]
    truth = "<p>An example of the page: the true box is dashed in the film strip.</p>" if target else ""
    return (
        f'<div class="answer"><b>{head} ({box})</b><p>{facts}</p><p>{escape(found.expression)}</p>'
        f'<div class="wide">{table}</div>{"".join(f"<p>{text}</p>" for text in others)}{truth}</div>'
    )
