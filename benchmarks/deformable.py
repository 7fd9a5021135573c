"""Multi-scale deformable attention, forward and backward, against PyTorch: ``python -m benchmarks.deformable``.

At encoder size: a query for each cell of four levels, 8 heads of 32 channels, 4 points. The peer is the grid_sample
form of transformers. Peak memory is that of one call in a process of each side's own, inputs not counted. ``--forms``
compares our forms with each other instead.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import interleaved, table
from benchmarks.peak_memory import peak_of
from piza_jax.ops.deformable import FORMS, deformable_attention

TITLE = "Deformable attention, forward and backward, against PyTorch"
BAR = 1.5
STRIDES, HEADS, CHANNELS, POINTS = (8, 16, 32, 64), 8, 32, 4
# Of output and gradients, relative norm.
MOST = {"float32": 1e-3, "tensorfloat32": 1e-3, "bfloat16": 2e-2}
NAMES = ("output", "value gradient", "location gradient", "weight gradient")


def make_inputs(batch: int, side: int) -> tuple[list[np.ndarray], tuple[tuple[int, int], ...]]:
    """Values, locations, weights and the gradient of the output, float32, and the levels' shapes."""
    rng = np.random.default_rng(0)
    shapes_hw = tuple((-(-side // stride),) * 2 for stride in STRIDES)
    centres = []
    for h, w in shapes_hw:
        grid = np.stack(np.meshgrid((np.arange(w) + 0.5) / w, (np.arange(h) + 0.5) / h), axis=-1)
        centres.append(grid.reshape(-1, 2))
    references = np.concatenate(centres)  # [Q, 2]
    queries, levels = len(references), len(shapes_hw)
    shape = (batch, queries, HEADS, levels, POINTS)
    cells = np.array([(w, h) for h, w in shapes_hw])[:, None]
    locations = references[None, :, None, None, None] + 3 * rng.normal(size=(*shape, 2)) / cells  # some lie outside
    weights = rng.random(shape)
    weights /= weights.sum(axis=(3, 4), keepdims=True)
    values, cotangent = rng.normal(size=(2, batch, queries, HEADS * CHANNELS))
    arrays = values.reshape(batch, queries, HEADS, CHANNELS), locations, weights, cotangent
    return [array.astype(np.float32) for array in arrays], shapes_hw


def make_ours(
    arrays: list[np.ndarray],
    shapes_hw: tuple[tuple[int, int], ...],
    dtype: Any,
    form: str | None = None,
    backward: bool = True,
) -> Callable[[], list]:
    """Callable that gives the output and its three gradients, or the output alone, on the device, done."""

    @jax.jit
    def run(values: jax.Array, locations: jax.Array, weights: jax.Array, cotangent: jax.Array) -> tuple:
        sample = partial(deformable_attention, shapes_hw=shapes_hw, form=form)
        if not backward:
            return (sample(values, locations, weights),)
        out, back = jax.vjp(sample, values, locations, weights)
        return out, *back(cotangent)

    values, locations, weights, cotangent = map(jnp.asarray, arrays)
    placed = jax.block_until_ready((values.astype(dtype), locations, weights, cotangent.astype(dtype)))
    return lambda: list(jax.block_until_ready(run(*placed)))


def make_peer(
    arrays: list[np.ndarray], shapes_hw: tuple[tuple[int, int], ...], machine: interleaved.Machine
) -> Callable[[], list]:
    """The same in PyTorch."""
    import torch
    from transformers.models.mm_grounding_dino.modeling_mm_grounding_dino import MultiScaleDeformableAttention

    attention = MultiScaleDeformableAttention()
    placed = [torch.from_numpy(array).to(machine.torch_device) for array in arrays]
    if machine.dtype == "bfloat16":
        placed[0] = placed[0].bfloat16()
    leaves = [leaf.requires_grad_() for leaf in placed[:3]]
    cells = torch.tensor(shapes_hw, device=machine.torch_device)

    def run() -> list:
        with machine.autocast():
            out = attention(leaves[0], cells, shapes_hw, None, leaves[1], leaves[2], 64)
        gradients = torch.autograd.grad(out, leaves, placed[3].to(out.dtype))
        machine.synchronise()
        return [out.detach(), *gradients]

    return run


def main(arguments: Sequence[str] | None = None) -> str:
    """Run, print and append; returns the row."""
    parser = interleaved.parser(__doc__)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--side", type=int, help="of the square image, pixels (1024)")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument("--measure", choices=("ours", "peer"), help="only print the peak memory of one side, as JSON")
    parser.add_argument("--forms", action="store_true", help="only print the times of each form of ours")
    options = parser.parse_args(arguments)
    side = options.side or (64 if options.small else 1024)
    with interleaved.session(options) as machine:
        arrays, shapes_hw = make_inputs(options.batch, side)
        dtype = "bfloat16" if machine.dtype == "bfloat16" else "float32"
        if options.measure:
            ours = options.measure == "ours"
            call = make_ours(arrays, shapes_hw, dtype) if ours else make_peer(arrays, shapes_hw, machine)
            print(json.dumps({"bytes": _peak(call, machine, ours)}))
            return ""
        if options.forms:
            shown = times_of_forms(arrays, shapes_hw, dtype, options.runs)
            print(f"{machine.describe()}; {table.versions()}; {machine.dtype}\n\n{shown}")
            return shown
        ours, peer = make_ours(arrays, shapes_hw, dtype), make_peer(arrays, shapes_hw, machine)
        times = interleaved.alternate(ours, peer, options.runs)
        pairs = [
            (np.asarray(mine, np.float32), theirs.float().cpu().numpy())
            for mine, theirs in zip(ours(), peer(), strict=True)
        ]
        apart = [float(np.linalg.norm(mine - theirs) / np.linalg.norm(theirs)) for mine, theirs in pairs]
        worst = int(np.argmax(apart))
        difference = interleaved.check(NAMES[worst], apart[worst], MOST[machine.dtype])
    memory = "-" if options.no_memory else _both_peaks(arguments)
    shapes = f"{options.batch} x {arrays[1].shape[1]} queries, {HEADS} heads of {CHANNELS}, {len(shapes_hw)} levels"
    result = table.Result(TITLE, f"{shapes}, {POINTS} points", *times, BAR, difference, memory=memory)
    return table.report(result, machine, options, table.command("deformable", arguments))


def times_of_forms(arrays: list[np.ndarray], shapes_hw: tuple[tuple[int, int], ...], dtype: Any, runs: int) -> str:
    """A table in Markdown of the forms that this platform can run, forward and forward with backward.

    Raises:
        PizaError: no run.
    """
    rows = ["| form | forward | with backward |", "|---|---|---|"]
    for form in (form for form in FORMS if form != "kernel" or jax.default_backend() == "gpu"):
        calls = [make_ours(arrays, shapes_hw, dtype, form, backward) for backward in (False, True)]
        times = interleaved.alternate(*calls, runs)
        rows.append(f"| {form} | {' | '.join(time.text('ms', 1000) for time in times)} |")
    return "\n".join(rows)


def _both_peaks(arguments: Sequence[str] | None) -> str:
    again = [sys.executable, "-m", "benchmarks.deformable", *(sys.argv[1:] if arguments is None else arguments)]
    found = []
    for side in ("ours", "peer"):
        shown = subprocess.check_output([*again, "--measure", side], text=True)
        found.append(json.loads(shown.splitlines()[-1])["bytes"])
    return "; ".join(f"{count / 2**20:.0f} MiB" for count in found)


def _peak(call: Callable[[], list], machine: interleaved.Machine, ours: bool) -> int:
    call()  # compiled, and what is kept for good is there
    if machine.kind == "cpu":
        return peak_of(call)
    if ours:
        held = machine.device.memory_stats()["bytes_in_use"]
        call()
        return machine.device.memory_stats()["peak_bytes_in_use"] - held
    import torch

    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    call()
    return torch.cuda.max_memory_allocated() - held


if __name__ == "__main__":
    sys.exit(table.program(main))
