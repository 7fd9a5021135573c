"""A training step of PIZA-Adapter+, against transformers' detector in PyTorch: ``python -m benchmarks.train_step``.

Both train the same parameters (adapters, every LayerNorm, zoom embedding) from the same weights with the same losses
and AdamW. Left out on both sides: denoising queries, which transformers has none of, and the box-history network, which
is a thousandth of the work and stands apart from the detector. One view with one target a sample. Ours pads sentences
to ``--max_tokens``, as its configurations do; the peer to the longest of the batch. On a CPU both have a malloc that
keeps its memory, as ``piza train`` has it.
"""

import dataclasses
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import interleaved, peers, table, trace
from piza_jax import cpu
from piza_jax.models.config import REMAT
from piza_jax.models.params import flatten_state
from piza_jax.models.text import expression_tokens
from piza_jax.ops.encodings import progress_encoding
from piza_jax.peft import select
from piza_jax.piza.detector import config_of_method
from piza_jax.plan.flops import matmul_flops
from piza_jax.training.objective import compute_losses
from piza_jax.training.optim import OptimizerConfig, make_optimizer, make_schedule
from piza_jax.training.step import TrainState, make_step

TITLE = "Training step of PIZA-Adapter+, against PyTorch"
METHOD = "piza_adapter_plus"
BAR = {"cpu": None, "gpu": 2.0}
MOST = {"float32": 2e-3, "tensorfloat32": 2e-2, "bfloat16": 5e-2}  # relative


def make_batch(loaded: Any, size: int, canvas: int, tokens: int, max_tokens: int) -> dict[str, np.ndarray]:
    """Noise of full views, sentences of random words of one length, boxes; the fields that the losses take."""
    rng = np.random.default_rng(0)
    words = rng.integers(1030, loaded.config.detector.bert.vocab_size, (size, tokens))
    cls, sep, stop, _ = loaded.config.detector.delimiter_ids
    words[:, 0], words[:, -2], words[:, -1] = cls, stop, sep
    input_ids = np.zeros((size, max_tokens), np.int32)
    input_ids[:, :tokens] = words
    boxes = np.concatenate([rng.uniform(0.3, 0.7, (size, 2)), rng.uniform(0.1, 0.4, (size, 2))], 1)
    return {
        "image": rng.integers(0, 256, (size, canvas, canvas, 3)).astype(np.uint8),
        "valid_hw": np.full((size, 2), canvas, np.int32),
        "input_ids": input_ids,
        "token_mask": input_ids > 0,
        "target_box": boxes.astype(np.float32),
        "has_target": np.ones(size, bool),
        "progress": (np.round(rng.uniform(size=size) * 20) / 20).astype(np.float32),
    }


class Ours:
    """The trainer's own step, from the converted detector."""

    def __init__(self, loaded: Any, remat: str, scan: bool, optimise: bool):
        """``optimise``: let the compiler take its time, which a step that runs twice is not worth."""
        detector = dataclasses.replace(loaded.config.detector, remat=remat, scan_layers=scan)
        config = dataclasses.replace(config_of_method(METHOD, detector), history=False)
        self.split = select.split(peers.extended(loaded, config), METHOD)
        trained, frozen = (flatten_state(state) for state in self.split[1:])
        self.settings = OptimizerConfig(schedule="constant")
        optimizer = make_optimizer(self.settings, make_schedule(self.settings, 1.0, 1))
        self.weights = {name: np.array(value) for name, value in trained.items()}
        self.state, self.frozen = TrainState(jnp.int32(0), trained, optimizer.init(trained)), frozen
        step = make_step(self.split, compute_losses, optimizer)
        quickly = None if optimise else {"xla_backend_optimization_level": 0}
        self.run = jax.jit(step, donate_argnums=0, compiler_options=quickly)

    def step(self, batch: Mapping[str, jax.Array]) -> tuple[float, float]:
        """Loss and norm of its gradient; done when it returns."""
        self.state, scalars = self.run(self.state, self.frozen, batch)
        jax.block_until_ready(self.state)
        return float(scalars["loss"]), float(scalars["grad_norm"])


def main(arguments: Sequence[str] | None = None) -> str:
    """Run, print and append; returns the row."""
    parser = interleaved.parser(__doc__)
    parser.add_argument("--size", choices=("tiny", "swin_t"), help="of the detector (swin_t; tiny with --small)")
    parser.add_argument("--canvas", type=int, help="side of the square views (1024; 64 with --small)")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32, help="of each sentence")
    parser.add_argument("--max_tokens", type=int, default=128, help="that ours pads them to")
    parser.add_argument("--remat", choices=REMAT, default="none", help="what ours recomputes in the backward pass")
    parser.add_argument("--scan", action="store_true", help="ours compiles a layer once and loops over the weights")
    trace.add_option(parser)
    options = parser.parse_args(arguments)
    tiny = (options.size or ("tiny" if options.small else "swin_t")) == "tiny"
    canvas = options.canvas or (64 if options.small else 1024)
    with interleaved.session(options) as machine, tempfile.TemporaryDirectory() as folder:
        import torch

        from benchmarks.train_peer import Trainer

        pair = peers.make_pair(Path(folder), tiny, machine)
        batch = make_batch(pair.loaded, options.batch, canvas, options.tokens, options.max_tokens)
        ours = Ours(pair.loaded, options.remat, options.scan, optimise=not options.small)
        theirs = Trainer(pair.model, ours.weights, machine, ours.settings)
        count, peer_count = sum(x.size for x in ours.weights.values()), sum(x.numel() for x in theirs.parameters)
        interleaved.check("trainable parameters", abs(count - peer_count), 0)
        on_device = jax.device_put(batch)
        flops = matmul_flops(ours.run.trace(ours.state, ours.frozen, on_device).jaxpr)
        for_torch = {
            "positive": np.asarray(expression_tokens(batch["token_mask"]), np.float32)[:, : options.tokens],
            "progress_code": np.asarray(progress_encoding(batch["progress"], pair.loaded.config.detector.dim)),
            "input_ids": batch["input_ids"][:, : options.tokens].astype(np.int64),
            **{name: batch[name] for name in ("image", "valid_hw", "target_box")},
        }
        tensors = {name: torch.tensor(array, device=machine.torch_device) for name, array in for_torch.items()}
        told: tuple[list, list] = ([], [])

        def peer() -> None:
            told[1].append([float(value) for value in theirs.step(tensors)])

        times = interleaved.alternate(lambda: told[0].append(ours.step(on_device)), peer, options.runs, settle=1)
        difference = _difference(np.array(told), MOST[machine.dtype])
        trace.show(lambda: ours.step(on_device), machine.device, options)
    print(f"ours: {flops / 1e12:.3g} TFLOP in matrix products a step, {flops / 1e12 / times[0].median:.3g} TFLOP/s")
    padded = f"{options.tokens} tokens (ours padded to {options.max_tokens})"
    shapes = f"{'tiny' if tiny else 'Swin-T'}, batch {options.batch}, {canvas} x {canvas}, {padded}, remat"
    kept = f"{options.remat}, layers in a loop" if options.scan else options.remat
    shapes = f"{shapes} {kept}; {count / 1e6:.2f} M trained, {flops / 1e12:.3g} TFLOP"
    result = table.Result(TITLE, shapes, *times, BAR[machine.kind], difference)
    return table.report(result, machine, options, table.command("train_step", arguments))


def _difference(told: np.ndarray, most: float) -> str:
    """Of what both sides tell [2, steps, (loss, norm)]: the first step, and the loss after the first update."""
    apart = np.abs(told[0] - told[1]) / np.abs(told[1])
    named = {"loss": apart[0, 0], "gradient norm": apart[0, 1], "loss of step 2": apart[1, 0]}
    return ", ".join(interleaved.check(name, float(value), most) for name, value in named.items())


if __name__ == "__main__":
    cpu.keep_memory()
    sys.exit(table.program(main))
