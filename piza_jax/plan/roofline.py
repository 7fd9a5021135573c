"""How long a program takes at best, from its work and a chip's published figures, and what holds it up."""

from dataclasses import dataclass

from piza_jax.models.config import DetectorConfig
from piza_jax.models.denoising import group_count
from piza_jax.plan.chips import DEFORMABLE_QUERIES, Chip
from piza_jax.plan.programs import Measured

# The ranges of chips.py are those of 8 heads with 4 levels of 4 points, 32 channels a head.
_MEASURED_SAMPLES = 8 * 4 * 4 * 32


@dataclass(frozen=True)
class Times:
    """Seconds of one call of a program on each device.

    Attributes:
        compute: matrix FLOPs at the chip's peak, evenly shared.
        memory: the compiler's count of bytes at the published bandwidth, loops once; None if it gave none.
        links: bytes sent in rings along one axis of the network each.
        deformable: low and high estimate of all deformable attentions; None where it was not measured for the chip.
        low: the parts fully overlapped, but for deformable attention, which is added.
        high: the parts one after another.
        limiter: the largest part.
    """

    compute: float
    memory: float | None
    links: float
    deformable: tuple[float, float] | None
    low: float
    high: float
    limiter: str


def estimate(
    measured: Measured,
    chip: Chip,
    devices: int,
    detector: DetectorConfig,
    canvas_hw: tuple[int, int],
    *,
    training: bool,
    views: int = 1,
    targets: int = 1,
) -> Times:
    """Times of a compiled program.

    Args:
        measured: the program.
        chip: what a device has.
        devices: how many there are.
        detector: sizes of the model.
        canvas_hw: of a view.
        training: whether there is a backward pass.
        views: that one call looks at of each sample: the steps of a zoom; 0: a program without deformable attention.
        targets: most targets of a sample in training.
    """
    compute = measured.flops / devices / chip.flops
    memory = None if measured.traffic is None else measured.traffic / chip.memory_bandwidth
    links = sum(collective.sent_bytes for collective in measured.collectives) / chip.ring_bandwidth
    samples = measured.batch * views / devices  # along the tensor axis devices share the heads
    deformable = None
    if chip.deformable_ms is not None:
        units = samples * deformable_units(detector, canvas_hw, training, targets)
        forward, both = chip.deformable_ms
        again = training and detector.remat != "none"
        ranges = [(both if training else forward)[end] + (forward[end] if again else 0.0) for end in (0, 1)]
        deformable = (units * ranges[0] / 1000, units * ranges[1] / 1000)
    parts = {"compute": compute, "memory": memory or 0.0, "links": links}
    low, high = max(parts.values()), sum(parts.values())
    if deformable:
        low, high = low + deformable[0], high + deformable[1]
        parts["deformable attention"] = sum(deformable) / 2
    return Times(compute, memory, links, deformable, low, high, max(parts, key=lambda name: parts[name]))


def deformable_units(detector: DetectorConfig, canvas_hw: tuple[int, int], training: bool, targets: int = 1) -> float:
    """Deformable attentions of one sample, in those that chips.py gives times for."""
    cells = count_cells(detector, canvas_hw)
    denoising = training and detector.denoising_queries
    extra = 2 * group_count(detector.denoising_queries, targets) * targets if denoising else 0
    queries = detector.encoder_layers * cells + detector.decoder_layers * (detector.queries + extra)
    each = detector.levels * detector.points * detector.dim  # heads x channels of a head = dim
    return queries / DEFORMABLE_QUERIES * each / _MEASURED_SAMPLES


def count_cells(detector: DetectorConfig, canvas_hw: tuple[int, int]) -> int:
    """Cells of all feature levels of a canvas, which are the queries of an encoder layer."""
    stages = len(detector.swin.depths) - detector.swin.first_output
    strides = [4 * 2 ** (detector.swin.first_output + level) for level in range(stages)]
    strides += [strides[-1] * 2 ** (level + 1) for level in range(detector.levels - stages)]
    return sum(-(-canvas_hw[0] // stride) * -(-canvas_hw[1] // stride) for stride in strides)
