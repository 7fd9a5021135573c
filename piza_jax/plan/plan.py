"""The plan of a run: its training step and its zoom on the devices of a topology, put into numbers."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from ml_collections import ConfigDict

from piza_jax.piza.detector import config_from_dict
from piza_jax.plan.apart import measure_step_apart
from piza_jax.plan.chips import Chip, devices_of, find_chip
from piza_jax.plan.programs import Measured, make_program, measure_step, measure_zoom
from piza_jax.plan.roofline import Times, estimate
from piza_jax.plan.search import largest_batch
from piza_jax.training import sharding

TRAIN_L = 61_369  # expressions of SOREC's train_l
EPOCHS = 5  # that the paper trains for


@dataclass(frozen=True)
class Plan:
    """All that is known of a run before it starts; ``unknown`` says what is not.

    Attributes:
        topology: its name, or "" for the devices here.
        device: kind of the devices.
        chip: their published figures; None for kinds that are not in the table.
        mesh: sizes of the axes.
        config: settings that decide cost, by name.
        counts: numbers of trained and of frozen parameters.
        step: the training step; step_times None without published figures.
        zoom: the zoom of a batch, all its steps; None if it was not asked for.
        largest_batch: over all devices; None if it was not searched for.
        tried: {batch: bytes that it needs on a device} of that search.
        length: what is trained for: EPOCHS of TRAIN_L, or the steps of a run on captions.
        hours: low and high, for that.
        unknown: sentences.
    """

    topology: str
    device: str
    chip: Chip | None
    mesh: dict[str, int]
    config: dict[str, Any]
    counts: dict[str, int]
    step: Measured
    step_times: Times | None
    zoom: Measured | None
    zoom_times: Times | None
    largest_batch: int | None
    tried: dict[int, int | None]
    length: str
    hours: tuple[float, float] | None
    unknown: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def make_plan(
    config: ConfigDict,
    topology: str | None = None,
    *,
    batch: int | None = None,
    photo_hw: tuple[int, int] | None = (4096, 6144),
    zoom_batch: int | None = None,
    search: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Compile the training step and the zoom of a configuration, and put them into numbers.

    Args:
        config: as for training; config.mesh says how the devices are used.
        topology: of a TPU that is not here, such as "v5e:16x16"; None for the devices that are.
        batch: samples of a step over all devices; by default config.train.batch_size.
        photo_hw: size of the photos that are zoomed into; None leaves the zoom out.
        zoom_batch: photos of a zoom over all devices; by default one for each.
        search: look for the largest batch of a step that fits, with a few compilations more.
        say: is told what is being done.

    Raises:
        PizaError: no TPU compiler or topology, a mesh that does not fit the devices, a batch that does not divide, a
            configuration that training would refuse.
    """
    devices = devices_of(topology)
    mesh = sharding.mesh_of(config.mesh, devices)
    batch = config.train.batch_size if batch is None else batch
    sharding.check_batch(mesh, batch)
    chip = find_chip(devices[0])
    captions = config.data.get("captions")
    per_epoch = (config.data.num_photos if captions else TRAIN_L) / batch
    length, steps = _length(config, per_epoch)
    program = make_program(config, mesh, per_epoch)

    def measure(size: int) -> Measured:
        if search and topology:  # each compilation would leave gigabytes behind
            return measure_step_apart(config, topology, size, per_epoch)
        return measure_step(program, size)

    say(f"compiling the training step for {len(devices)} x {devices[0].device_kind}, batch {batch}")
    step = measure(batch)
    tried: dict[int, int | None] = {batch: step.total}
    largest = None
    if search and chip is not None:
        largest = largest_batch(measure, step, sharding.batch_devices(mesh), chip.usable_bytes, tried, say)
    zoom = None
    if photo_hw is not None:
        zoom_batch = sharding.batch_devices(mesh) if zoom_batch is None else zoom_batch
        say(f"compiling the zoom, batch {zoom_batch}")
        zoom = measure_zoom(program, zoom_batch, photo_hw)
    detector = config_from_dict(config.model.to_dict()).detector
    canvas_hw = tuple(config.data.canvas_hw)
    step_times = zoom_times = hours = None
    if chip is not None:
        views = int(config.train.get("stage", "detector") == "detector")
        targets = captions.max_boxes if captions else 1
        sizes = chip, len(devices), detector, canvas_hw
        step_times = estimate(step, *sizes, training=True, views=views, targets=targets)
        hours = (steps * step_times.low / 3600, steps * step_times.high / 3600)
        if zoom is not None:
            views = config.search.max_steps + bool(config.get("zoom", {}).get("last_look"))
            zoom_times = estimate(zoom, *sizes, training=False, views=views)
    trainable, frozen = program.abstract_state.trainable, program.abstract_frozen
    return Plan(
        topology=topology or "",
        device=devices[0].device_kind,
        chip=chip,
        mesh=dict(mesh.shape),
        config=_settings(config),
        counts={"trained": _count(trainable), "frozen": _count(frozen)},
        step=step,
        step_times=step_times,
        zoom=zoom,
        zoom_times=zoom_times,
        largest_batch=largest,
        tried=tried,
        length=length,
        hours=hours,
        unknown=_unknown(chip, step, zoom, len(devices)),
    )


def _length(config: ConfigDict, steps_per_epoch: float) -> tuple[str, float]:
    """How long a run is, in words and in steps: the paper's, or that of its configuration where it is on captions."""
    if not config.data.get("captions"):
        return f"{EPOCHS} epochs of {TRAIN_L:,}", EPOCHS * steps_per_epoch
    steps = config.train.num_steps or round(config.train.num_epochs * steps_per_epoch)
    return f"{steps:,} steps", steps


def _count(parameters: Mapping[str, jax.ShapeDtypeStruct]) -> int:
    return sum(leaf.size for leaf in parameters.values())


def _settings(config: ConfigDict) -> dict[str, Any]:
    detector = config.model.detector
    return {
        "peft": config.peft,
        "freeze": list(config.get("freeze", ())),
        "canvas_hw": list(config.data.canvas_hw),
        "max_tokens": config.data.max_tokens,
        "boxes_of_a_caption": config.data.captions.max_boxes if config.data.get("captions") else "",
        "stage": "" if config.train.get("stage", "detector") == "detector" else config.train.stage,
        "dtype": detector.dtype,
        "remat": detector.remat,
        "swin": f"dim {detector.swin.dim}, depths {tuple(detector.swin.depths)}",
        "accumulate": config.optimizer.accumulate,
        "zoom_steps": config.search.max_steps,
    }


def _unknown(chip: Chip | None, step: Measured, zoom: Measured | None, devices: int) -> tuple[str, ...]:
    said = [
        "how near to its peak the chip comes: times are those of a program that wastes nothing but what is named",
        "time to read and crop photos on the hosts, which is not in the step",
    ]
    if chip is None:
        said.append("the device's peaks and memory: its kind is not in the table of piza_jax/plan/chips.py")
    elif chip.deformable_ms is None:
        said.append(f"deformable attention on {chip.name}, which has not been measured and is in no time here")
    else:
        said.append("deformable attention is a range from the compiler's machine code, not from a chip; the decoder's "
                    "is scaled from the encoder's by its number of queries")  # fmt: skip
    if any(not collective.known for program in (step, zoom) if program for collective in program.collectives):
        said.append("how often some collectives run: they stand in loops of unknown length and are counted once")
    if any(program.unknown_loops for program in (step, zoom) if program):
        said.append("the length of some loops, whose matrix products are counted once")
    if devices > 1:
        said.append("how much of the traffic between chips hides behind the computation: low says all, high none")
    return tuple(said)
