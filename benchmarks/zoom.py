"""A zoom of five steps into a large photo, against a PyTorch loop: ``python -m benchmarks.zoom``.

The loop does what the paper's release does: one photo at a time, each crop cut and resized on the host, the sentence
encoded at every step, the best box read back. It looks at the crops that our zoom took, on the same canvas, so that the
detector's work is equal; a detector's box is the next crop, and no step is final before the fifth.

The release does not pad the first view of a photo that is not square; that would save the loop a part of one step.
"""

import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from benchmarks import interleaved, peers, table, trace
from piza_jax.data.views import make_view
from piza_jax.errors import PizaError
from piza_jax.ops.crop import crop_resize
from piza_jax.piza.grounding import Grounder, Grounding
from piza_jax.piza.zoom_config import ZoomConfig

TITLE = "Zoom of five steps, against a PyTorch loop"
BAR = {"cpu": 2.0, "gpu": 3.0}
STEPS = 5
MOST_LEVELS = 2.0  # mean absolute difference from Pillow's pixels, of 255


def main(arguments: Sequence[str] | None = None) -> str:
    """Run, print and append; returns the row. PizaError for more peer_photos than the batch has."""
    parser = interleaved.parser(__doc__, runs=3)
    parser.add_argument("--photo", help="of any size, in place of a drawn one of 3000 x 4000")
    parser.add_argument("--canvas", type=int, nargs=2, metavar=("H", "W"), help="of every crop (1024 1024)")
    parser.add_argument("--batch", type=int, default=1, help="photos in one call of ours")
    parser.add_argument("--peer_photos", type=int, help="the loop's own, its time taken in proportion (all of them)")
    trace.add_option(parser)
    options = parser.parse_args(arguments)
    looped = options.batch if options.peer_photos is None else options.peer_photos
    if not 1 <= looped <= options.batch:
        raise PizaError(f"--peer_photos={looped} with --batch={options.batch}; give 1..{options.batch}")
    canvas = tuple(options.canvas or ((64, 64) if options.small else (1024, 1024)))
    size = (96, 128) if options.small else (3000, 4000)
    with interleaved.session(options) as machine, tempfile.TemporaryDirectory() as folder:
        pair = peers.make_pair(Path(folder), options.small, machine)
        photo = np.array(Image.open(options.photo).convert("RGB")) if options.photo else peers.photo(*size)
        grounder = _grounder(pair, canvas, min(photo.shape[:2]) / 8, options.batch)
        photos, sentences = [photo] * options.batch, [peers.SENTENCE] * options.batch
        found: list[Grounding] = []
        words, theirs = peers.token_ids(pair.loaded, peers.SENTENCE), peers.TorchDetector(pair.model, machine)

        def ours() -> None:
            found[:] = grounder.ground(photos, sentences)
            if any(len(one.steps) != STEPS for one in found):
                raise PizaError(f"a zoom took {min(len(one.steps) for one in found)} steps instead of {STEPS}")

        def peer() -> None:
            for one, array in zip(found[:looped], photos[:looped], strict=True):
                image = Image.fromarray(array)
                for step in one.steps:
                    theirs.best(*make_view(image, np.array(step.crop), canvas), words)

        mine, loop = interleaved.alternate(ours, peer, options.runs)
        loop = dataclasses.replace(loop, seconds=tuple(options.batch / looped * x for x in loop.seconds))
        difference = _difference(found[0], photo, canvas, theirs, words)
        trace.show(ours, machine.device, options)
    shapes = (
        f"{photo.shape[0]} x {photo.shape[1]}, {STEPS} crops on {canvas[0]} x {canvas[1]}, batch {options.batch}, "
        f"{words.shape[1]} tokens; {'small detector' if options.small else 'Swin-T'}; times of one photo"
        f"{f', the loop over {looped} of them' if looped < options.batch else ''}"
    )
    result = table.Result(TITLE, shapes, mine, loop, BAR[machine.kind], difference, factor=1 / options.batch)
    return table.report(result, machine, options, table.command("zoom", arguments))


def _grounder(pair: peers.Pair, canvas: tuple[int, ...], least: float, batch: int) -> Grounder:
    """Zooms with a history network, which chooses to stop or not; here it cannot, as no probability is above 1.

    A random detector finds boxes of any shape; crops of at least ``least`` px are about square, as those of a trained
    one are.
    """
    loaded = pair.loaded
    model = peers.extended(loaded, dataclasses.replace(loaded.config, history=True))
    settings = ZoomConfig(max_steps=STEPS, stop_threshold=2.0, canvas_hw=(canvas[0], canvas[1]), min_crop_px=least)
    return Grounder(model, loaded.tokenizer, settings, loaded.max_tokens, batch_size=batch)


def _difference(
    found: Grounding,
    photo: np.ndarray,
    canvas: tuple[int, ...],
    theirs: peers.TorchDetector,
    words: np.ndarray,
) -> str:
    """Of the worst step: our view's pixels from Pillow's, and our answer from the peer's on our pixels.

    A random detector is a rough function of its input: on pixels a level apart, boxes would say nothing.
    """
    photos, photo_hw = jnp.asarray(photo)[None], jnp.array([photo.shape[:2]])
    crop = jax.jit(lambda photos, box: crop_resize(photos, photo_hw, box[None], canvas)[0][0])
    dtype = theirs.machine.dtype
    worst = np.zeros(3)
    for step in found.steps:
        ours = np.asarray(crop(photos, jnp.array(step.crop, jnp.float32)))
        pillow, valid_hw = make_view(photo, np.array(step.crop), canvas)
        levels = np.abs(ours.astype(np.int16) - pillow).mean()
        seen, tie = theirs.all(ours, valid_hw, words), peers.LIMITS[dtype][1]
        answers = peers.apart(step.box, step.score, step.crop, photo.shape[:2], seen, tie)
        worst = np.maximum(worst, [levels, *answers])
    levels, box, score = map(float, worst)
    return f"{interleaved.check('levels of 255', levels, MOST_LEVELS)}, {peers.check_apart(box, score, dtype)}"


if __name__ == "__main__":
    sys.exit(table.program(main))
