"""What a run tells: devices and parameters at the start, then bar, lines and metric files (first process only)."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
from clu import parameter_overview
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from piza_jax.training import sharding
from piza_jax.training.curves import save_charts
from piza_jax.training.throughput import StepCost, Throughput
from piza_jax.training.writer import MetricsWriter, read_metrics


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """Print a line without breaking the progress bar."""
    if is_first():
        tqdm.write(text)


def describe(mesh: Mesh, trainable: dict[str, jax.Array], frozen: dict[str, jax.Array], workdir: Path) -> None:
    """Print devices, mesh and parameter counts by module; the table of all parameters goes to parameters.txt."""
    devices = mesh.devices.flatten()
    say(
        f"backend {jax.default_backend()}: {len(devices)} x {devices[0].device_kind}, "
        f"{jax.process_count()} process(es); mesh {sharding.describe(mesh)}"
    )
    say(parameter_overview.make_table(_modules(trainable, frozen)))
    counts = [sum(leaf.size for leaf in group.values()) for group in (trainable, frozen)]
    say(f"{counts[0]:,} parameters are trained, {counts[1]:,} are frozen; all of them are in {workdir}/parameters.txt")
    if is_first():
        overview = parameter_overview.get_parameter_overview
        tables = [
            f"{title}\n{overview(group, include_stats='sharding')}\n"
            for title, group in (("trainable", trainable), ("frozen", frozen))
        ]
        (workdir / "parameters.txt").write_text("\n".join(tables), encoding="utf-8")


class Reporter:
    """Progress bar, printed lines and metric files of the first process."""

    def __init__(self, workdir: Path, start: int, num_steps: int, config: ConfigDict):
        first = is_first()
        self._workdir, self._writer = workdir, MetricsWriter(workdir, start) if first else None
        # disable=None: no bar where the output is not a terminal.
        self._bar = tqdm(total=num_steps, initial=start, unit="step", disable=None if first else True)
        self._batch_size = config.train.batch_size
        self._throughput = Throughput(self._batch_size, None)
        self._num_steps = num_steps
        self._evaluated = (
            {line["step"] for line in read_metrics(workdir) if any(map(_is_result, line))} if first else set()
        )

    def evaluated(self, step: int) -> bool:
        """Whether metrics.jsonl had this step's evaluation when the run was started."""
        return step in self._evaluated

    def cost(self, cost: StepCost) -> None:
        """Print what a step costs, before the first one runs."""
        say(cost.describe())
        self._throughput = Throughput(self._batch_size, cost.flops)

    def step(self, step: int) -> None:
        """Move the bar to this step."""
        self._throughput.step()
        self._bar.update(step - self._bar.n)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Record the scalars of a step with the rates since the last call."""
        scalars = {**scalars, **self._throughput.read()}
        if self._writer:
            self._writer.write(step, scalars)
        self._bar.set_postfix(loss=f"{scalars['loss']:.4g}")
        if self._bar.disable:
            rate = scalars.get("images_per_second", math.nan)
            say(f"step {step}/{self._num_steps}  loss {scalars['loss']:.5g}  {rate:.3g} images/s")

    def evaluation(self, step: int, evaluate: Callable[[], Mapping[str, float]]) -> None:
        """Run an evaluation, outside the rates, and record its results as eval/NAME."""
        began = time.perf_counter()
        results = {f"eval/{name}": float(value) for name, value in evaluate().items()}
        self._throughput.exclude(time.perf_counter() - began)
        if self._writer:
            self._writer.write(step, results)
        say(f"step {step}  " + "  ".join(f"{name} {value:.4g}" for name, value in results.items()))

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
        if self._writer:
            self._writer.close()
            with contextlib.suppress(OSError):  # a full disk: the run itself has said so, or is done
                save_charts(self._workdir)


@dataclass(frozen=True)
class _Module:
    module: str
    arrays: int
    trained: int
    frozen: int


def _modules(trainable: Mapping[str, jax.Array], frozen: Mapping[str, jax.Array]) -> list[_Module]:
    """Parameters counted by the first parts of their names, enough of them for a table of a page."""
    names = sorted({**trainable, **frozen})
    depth = max((depth for depth in (1, 2, 3) if len({_prefix(name, depth) for name in names}) <= 30), default=1)
    rows = []
    for prefix in dict.fromkeys(_prefix(name, depth) for name in names):
        sizes = [
            [leaf.size for name, leaf in group.items() if _prefix(name, depth) == prefix]
            for group in (trainable, frozen)
        ]
        rows.append(_Module(prefix, len(sizes[0]) + len(sizes[1]), sum(sizes[0]), sum(sizes[1])))
    return rows


def _prefix(name: str, depth: int) -> str:
    return "/".join(name.split("/")[:-1][:depth]) or name


def _is_result(name: str) -> bool:
    return name.startswith("eval/")
