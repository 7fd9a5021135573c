"""What chips have, as published, and what was found out about them by compiling for them."""

from dataclasses import dataclass
from typing import Any

import jax

from piza_jax.errors import PizaError

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """Figures of one device as jax counts them: a chip, but on TPU7x a half of one, each of whose cores is a device.

    Published; docs/tpu.md names the pages. Not published is usable_bytes.

    Attributes:
        name: short name.
        flops: dense matrix FLOP/s, bfloat16 (float16 where a chip lacks it).
        memory_bytes: memory of the device.
        usable_bytes: what the compiler lets a program have, from its own message for one that is too large; of GPUs
            all that there is.
        memory_bandwidth: bytes/s.
        link_bandwidth: bytes/s both ways together, all links of the device.
        torus: dimensions of the network of links; a ring along a mesh axis uses the links of one. 0: a switch.
        deformable_ms: range of one deformable attention of the encoder, forward and forward with backward, in ms, for
            ``DEFORMABLE_QUERIES`` queries; estimated from the compiler's machine code. None: not measured.
    """

    name: str
    flops: float
    memory_bytes: float
    usable_bytes: float
    memory_bandwidth: float
    link_bandwidth: float
    torus: int
    deformable_ms: tuple[tuple[float, float], tuple[float, float]] | None = None

    @property
    def ring_bandwidth(self) -> float:
        """Bytes/s that a device sends in a ring along one axis, both directions in use."""
        return self.link_bandwidth / 2 / max(self.torus, 1)


# Two images of 1024 x 1024: 21,760 queries each, 8 heads of 32 channels, 4 levels of 4 points.
DEFORMABLE_QUERIES = 2 * 21_760

# Links of v4: its page gives no bandwidth of a chip, but 1.1 PB/s of all-reduce for 4,096 of them, which is a chip's 6
# links one way, as the same figure of v5e and v6e is for their 4.
_CHIPS: dict[str, Chip] = {
    "TPU v4": Chip("v4", 275e12, 32 * GIB, 30.75 * GIB, 1200e9, 540e9, 3),
    "TPU v5 lite": Chip("v5e", 197e12, 16 * GIB, 15.75 * GIB, 819e9, 400e9, 2, ((13, 21), (44, 59))),
    "TPU v5": Chip("v5p", 459e12, 95 * GIB, 95.74 * GIB, 2765e9, 1200e9, 3, ((6, 10), (19, 27))),
    "TPU v6 lite": Chip("v6e", 918e12, 32 * GIB, 31.25 * GIB, 1638e9, 800e9, 2, ((9, 13), (39, 46))),
    "TPU7x": Chip("tpu7x", 1153.5e12, 96 * GIB, 94.75 * GIB, 3690e9, 600e9, 3),
    "NVIDIA H100 80GB HBM3": Chip("h100", 989e12, 80e9, 80e9, 3350e9, 900e9, 0),
    "NVIDIA H200": Chip("h200", 989e12, 141e9, 141e9, 4800e9, 900e9, 0),
    "NVIDIA A100-SXM4-80GB": Chip("a100", 312e12, 80e9, 80e9, 2039e9, 600e9, 0),
    "NVIDIA A100-SXM4-40GB": Chip("a100-40", 312e12, 40e9, 40e9, 1555e9, 600e9, 0),
    "Tesla T4": Chip("t4", 65e12, 16e9, 16e9, 320e9, 32e9, 0),
}


def find_chip(device: Any) -> Chip | None:
    """The figures of a device by its ``device_kind``; None for one that is not in the table, such as a CPU."""
    return _CHIPS.get(device.device_kind)


def open_topology(name: str) -> list[Any]:
    """The devices of a TPU topology such as "v5e:4x4" or "v5p:2x2x2", for compiling ahead of time.

    Raises:
        PizaError: no TPU compiler here, or no such topology.
    """
    from jax.experimental import topologies

    # The two cores of a v4 chip are one device on a real one, and two for the compiler unless it is told.
    options = {"chip_config_name": "megacore"} if name.startswith("v4:") else {}
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise PizaError(
            f"cannot compile for --topology={name}: {reason}; it needs the TPU compiler, which `pip install jax[tpu]` "
            "brings (any CPU will do), and a name such as v5e:2x2, v5e:16x16, v5p:2x2x2, v6e:4x4 or v4:2x2x1"
        ) from error


def devices_of(topology: str | None) -> list[Any]:
    """The devices of a topology, or those that are here."""
    return open_topology(topology) if topology else jax.devices()
