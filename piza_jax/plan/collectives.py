"""What devices send each other, read from a compiled program: kind, mesh axes, bytes, and how often."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4, "f32": 4}
_BYTES |= {"s64": 8, "u64": 8, "f64": 8, "f8e4m3fn": 1, "f8e5m2": 1, "c64": 8}
_HEAD = re.compile(r"^(ENTRY\s+)?%?([\w.\-]+)\s*\(.*->.*\{\s*$")
_OPERATION = re.compile(rf"=\s*(.+?)\s(?:{'|'.join(KINDS)})(?:-start)?\(")
_KIND = re.compile(rf"\s({'|'.join(KINDS)})(-start)?\(")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")
_AXIS = re.compile(r"'([^']+)'(?::\((\d+)\)(\d+))?")
_TRIPS = re.compile(r'known_trip_count"?:\s*\{"?n"?:\s*"?(\d+)')
_LIMIT = re.compile(r"ROOT .*\scompare\((?:s32\[\]\S*\s)?%?([\w.\-]+), (?:s32\[\]\S*\s)?%?([\w.\-]+)\), direction=LT")
_CALLED = re.compile(
    r"(?:to_apply|calls|body|condition|branch_computations|called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)


@dataclass(frozen=True)
class Collective:
    """One collective operation.

    Attributes:
        kind: one of KINDS.
        axes: mesh axes along which the devices of a group differ.
        devices: devices of a group.
        shapes: of the result, such as ("f32[256,64]",).
        bytes: of the result on one device.
        times: how often it runs in a call of the program.
        known: whether ``times`` is; loops of unknown length count once.
    """

    kind: str
    axes: tuple[str, ...]
    devices: int
    shapes: tuple[str, ...]
    bytes: int
    times: int
    known: bool = True

    @property
    def sent_bytes(self) -> float:
        """Bytes that each device sends in a ring algorithm, over all runs."""
        others = (self.devices - 1) / max(self.devices, 1)
        factor = {
            "all-reduce": 2 * others,
            "all-gather": others,
            "reduce-scatter": self.devices - 1,  # its result is one part
            "all-to-all": others,
        }.get(self.kind, 1.0)
        return self.bytes * factor * self.times


def read_collectives(text: str, mesh: Mesh) -> list[Collective]:
    """The collectives of a compiled program.

    Args:
        text: ``compiled.as_text()``.
        mesh: the mesh it was compiled for, whose order of devices its groups are numbers of.
    """
    computations = dict(_computations(text))
    runs = _runs(computations)
    found = []
    for name, lines in computations.items():
        if name not in runs:
            continue
        for line in lines:
            match = _OPERATION.search(line)
            if match is None:
                continue
            kind, start = _KIND.search(line).groups()  # type: ignore[union-attr]
            shapes = _shapes(match.group(1), bool(start), kind)
            groups = _groups(line, mesh.size, kind)
            times, known = runs[name]
            size = sum(_size(shape) for shape in shapes)
            devices = groups.shape[1]
            if devices > 1:
                found.append(Collective(kind, _axes(groups, mesh), devices, shapes, size, times, known))
    return found


def _computations(text: str) -> Iterator[tuple[str, list[str]]]:
    name: str | None = None
    lines: list[str] = []
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head and not line.startswith(" "):
            name, lines = ("ENTRY" if head.group(1) else head.group(2)), []
        elif line.startswith("}") and name:
            yield name, lines
            name = None
        elif name:
            lines.append(line)


def _runs(computations: dict[str, list[str]]) -> dict[str, tuple[int, bool]]:
    """How often each computation runs, and whether that is known, from the entry on."""
    runs: dict[str, tuple[int, bool]] = {}

    def visit(name: str, times: int, known: bool) -> None:
        old = runs.get(name, (0, True))
        runs[name] = (old[0] + times, old[1] and known)
        for line in computations[name]:
            called = [word for found in _CALLED.findall(line) for word in re.findall(r"[\w.\-]+", found)]
            factor, sure = 1, known
            if re.search(r"\swhile\(", line):
                trips = _trips(line, computations)
                factor, sure = (trips, known) if trips else (1, False)
            for other in called:
                if other in computations:
                    visit(other, times * factor, sure)

    if "ENTRY" in computations:
        visit("ENTRY", 1, True)
    return runs


def _trips(line: str, computations: dict[str, list[str]]) -> int | None:
    """How often a loop runs: as the compiler notes or the condition says, for loops of JAX count from 0 by 1."""
    noted = _TRIPS.search(line)
    if noted:
        return int(noted.group(1))
    name = re.search(r"condition=%?([\w.\-]+)", line)
    lines = computations.get(name.group(1), []) if name else []
    limit = next(filter(None, map(_LIMIT.search, lines)), None)
    if limit is None:
        return None
    constant = re.compile(rf"%?{re.escape(limit.group(2))} = s32\[\]\S* constant\((\d+)\)")
    found = next(filter(None, map(constant.search, lines)), None)
    return int(found.group(1)) if found else None


def _shapes(result: str, start: bool, kind: str) -> tuple[str, ...]:
    """Shapes of what comes out; that of an asynchronous start also holds what goes in, and counters."""
    shapes = [f"{kind_}[{sizes}]" for kind_, sizes in _SHAPE.findall(result) if kind_ in _BYTES]
    if start and kind in ("all-gather", "collective-permute", "reduce-scatter", "all-to-all") and len(shapes) > 1:
        shapes = [shape for shape in shapes if shape not in ("u32[]", "s32[]")]
        shapes = shapes[len(shapes) // 2 :]
    return tuple(shapes)


def _size(shape: str) -> int:
    kind, sizes = _SHAPE.match(shape).groups()  # type: ignore[union-attr]
    return _BYTES[kind] * math.prod(int(size) for size in sizes.split(",") if size)


def _groups(line: str, devices: int, kind: str) -> np.ndarray:
    """Groups of devices as rows of positions in the mesh, [groups, devices of one]."""
    named = re.search(r"replica_groups=mesh\[([^\]]*)\](?:,\s*device_ids=\((.*?)\))?\s*\{([^}]*)\}", line)
    if named:
        return _mesh_groups(*named.groups())
    tiled = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
    if tiled:
        shape, source, order = tiled.groups()
        return _iota(source, order).reshape(_numbers(shape))
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", line)
        return np.array(re.findall(r"\{(\d+),(\d+)", pairs.group(0)), int).reshape(-1, 2) if pairs else np.zeros((0, 2))
    listed = re.search(r"replica_groups=\{(\{[\d,{}\s]*\})\}", line)
    if listed:
        return np.array([[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", listed.group(1))])
    return np.arange(devices)[None]


def _mesh_groups(sizes: str, order: str | None, axes: str) -> np.ndarray:
    """Groups along axes 'a' or their parts 'a':(devices before it)size, of a mesh 'a'=2,'b'=4 of the compiler's own.

    Its devices are in order, or as [4,2]T(1,0) says: an iota of that shape, transposed; or a list.
    """
    wanted = {name: (int(before or 1), int(size or 0)) for name, before, size in _AXIS.findall(axes)}
    shape: list[int] = []
    moving = []
    for name, size in re.findall(r"'([^']+)'=(\d+)", sizes):
        before, part = wanted.get(name, (1, 1))
        part = part or int(size)
        shape += [before, part, int(size) // (before * part)]
        moving += [len(shape) - 2]
    devices = np.arange(math.prod(shape))
    if order:
        source = re.match(r"\[([\d,]+)\](?:T\(([\d,]+))?", order)
        devices = _iota(*source.groups()) if source else np.array(_numbers(order))
    groups = np.moveaxis(devices.reshape(shape), moving, range(-len(moving), 0))
    return groups.reshape(-1, math.prod(shape[axis] for axis in moving))


def _iota(shape: str, order: str | None) -> np.ndarray:
    numbers = np.arange(math.prod(_numbers(shape))).reshape(_numbers(shape))
    return numbers.transpose(_numbers(order)) if order else numbers


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _axes(groups: np.ndarray, mesh: Mesh) -> tuple[str, ...]:
    places = np.stack(np.unravel_index(groups.astype(int), mesh.devices.shape), axis=-1)  # [groups, devices, axes]
    moving = [bool((places[..., axis] != places[:, :1, axis]).any()) for axis in range(places.shape[-1])]
    return tuple(name for name, moves in zip(mesh.axis_names, moving, strict=True) if moves)
