"""Eight crops of a large photo resized to the canvas, against Pillow: ``python -m benchmarks.crop``.

The photo lies on the device. Their sides run from a few small things to the whole photo, evenly in logarithms, as in
zooms. Pillow uses one core, and so do we unless ``--threads`` gives more.
"""

import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from benchmarks import interleaved, peers, table
from piza_jax.data.views import make_view
from piza_jax.ops.crop import METHODS, crop_resize

TITLE = "Crop and resize, against Pillow"
BAR = 1.0
MOST_LEVELS = 2.0  # mean absolute difference of the worst crop, of 255


def crops(photo_hw: tuple[int, int], count: int, least: float) -> np.ndarray:
    """Boxes float32 [N, 4] xyxy of the photo's shape, their sides from ``least`` of the photo's to all of it."""
    rng = np.random.default_rng(0)
    size = np.array(photo_hw[::-1]) * np.geomspace(least, 1.0, count)[:, None]
    low = rng.uniform(size=(count, 2)) * (np.array(photo_hw[::-1]) - size)
    return np.concatenate([low, np.minimum(low + size, photo_hw[::-1])], axis=1).astype(np.float32)


def main(arguments: Sequence[str] | None = None) -> str:
    """Run, print and append; returns the row."""
    parser = interleaved.parser(__doc__, runs=9, dtypes=("uint8",))
    parser.set_defaults(threads=1)
    parser.add_argument("--canvas", type=int, nargs=2, metavar=("H", "W"), help="of every crop (1024 1024)")
    parser.add_argument("--count", type=int, default=8, help="crops")
    parser.add_argument("--least", type=float, default=0.02, help="side of the smallest crop, in sides of the photo")
    parser.add_argument("--method", choices=METHODS, default="auto", help="form of our crop")
    options = parser.parse_args(arguments)
    canvas = tuple(options.canvas or ((64, 64) if options.small else (1024, 1024)))
    size = (96, 128) if options.small else (3000, 4000)
    with interleaved.session(options) as machine:
        photo, boxes = peers.photo(*size), crops(size, options.count, options.least)
        image, on_device = Image.fromarray(photo), jax.device_put(photo)
        photo_hw = jnp.array([size], jnp.int32)

        @jax.jit
        def run(photo: jax.Array, boxes: jax.Array) -> jax.Array:
            def one(box: jax.Array) -> jax.Array:
                return crop_resize(photo[None], photo_hw, box[None], canvas, options.method)[0][0]

            return jax.lax.map(one, boxes)  # [N, H, W, 3]

        def pillow() -> list[np.ndarray]:
            return [make_view(image, box, canvas)[0] for box in boxes]

        times = interleaved.alternate(
            lambda: run(on_device, boxes).block_until_ready(), pillow, options.runs, warm_up=2
        )
        levels = [
            np.abs(ours.astype(np.int16) - theirs).mean()
            for ours, theirs in zip(np.asarray(run(on_device, boxes)), pillow(), strict=True)
        ]
        difference = interleaved.check("levels of 255", float(max(levels)), MOST_LEVELS)
    shapes = f"{options.count} crops of {size[0]} x {size[1]} to {canvas[0]} x {canvas[1]}, {options.method}"
    result = table.Result(TITLE, shapes, *times, BAR, difference, unit="ms", factor=1e3)
    return table.report(result, machine, options, table.command("crop", arguments))


if __name__ == "__main__":
    sys.exit(table.program(main))
