"""Which parts of our code a compiled call spends its time in, by jax's profiler and the compiled programs' own notes.

A part is the innermost class or function of ``piza_jax`` that an instruction was traced in, forward and backward apart.
On a GPU the times are those of kernels. On a CPU they are those of the threads that run instructions; what these hand
to other threads, as large products do, counts where it is waited for.
"""

import argparse
import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

import piza_jax

PACKAGE = Path(piza_jax.__file__).parent
# Passed over where a caller in the package says more.
HELPERS = ("models/layers.py", "models/params.py", "ops/images.py", "training/step.py")
UNKNOWN = "?"  # the compiler's own, and kernels of libraries, which name no instruction
TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")

Place = tuple[str, bool]  # part, whether in the backward pass
Event = tuple[float, float, str, tuple[str, ...]]  # start and end in ns, program, names by which it may be found


@dataclass(frozen=True)
class Part:
    """Time in one place of the code.

    Attributes:
        name: file in the package and class or function; the kind of copy between memories; UNKNOWN.
        backward: computes gradients, or again what they need.
        ms: without that of what runs inside.
        launches: kernels or instructions run.
    """

    name: str
    backward: bool
    ms: float
    launches: int


@dataclass(frozen=True)
class Trace:
    """One call.

    Attributes:
        platform: of the device.
        wall_ms: from its start to its end.
        busy_ms: of these, with something running.
        parts: the longest first; none where the profiler gave no times.
    """

    platform: str
    wall_ms: float
    busy_ms: float
    parts: tuple[Part, ...]

    def text(self, most: int = 15) -> str:
        """A table in Markdown of the longest parts, under a line about the whole, or why there is none."""
        if not self.parts:
            return f"no times by part: jax's profiler gave no instruction of this call on a {self.platform} device"
        total = sum(part.ms for part in self.parts)
        launches = sum(part.launches for part in self.parts)
        rows = [(_label(part.name, part.backward), part.ms, part.launches) for part in self.parts[:most]]
        if rest := self.parts[most:]:
            rows.append((f"{len(rest)} more", sum(part.ms for part in rest), sum(part.launches for part in rest)))
        lines = [f"| {name} | {ms:.2f} | {100 * ms / total:.1f} % | {count} |" for name, ms, count in rows]
        about = (
            f"{self.wall_ms:.1f} ms, busy for {self.busy_ms:.1f} ms, {launches} launches on a {self.platform} device"
        )
        return "\n".join([about, "", "| part | ms | share | launches |", "|---|---|---|---|", *lines])


def add_option(parser: argparse.ArgumentParser) -> None:
    """--profile, for ``show``."""
    parser.add_argument(
        "--profile", action="store_true", help="also print where the time of a call of ours goes, by part"
    )


def show(call: Callable[[], Any], device: jax.Device, options: argparse.Namespace) -> None:
    """Trace a call and print the table, where the options say so."""
    if options.profile:
        print(f"\nours: {trace(call, device).text()}", flush=True)


def trace(call: Callable[[], Any], device: jax.Device) -> Trace:
    """Run a call once and tell where its time went.

    Args:
        call: compiled already, and done when it returns.
        device: that it runs on, a CPU or a GPU.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            began = time.perf_counter()
            call()
            wall_ms = 1000 * (time.perf_counter() - began)
        found = Path(folder).rglob("*.xplane.pb")
        threads = [list(events) for path in found for events in _events(path, device.platform)]
    return Trace(device.platform, wall_ms, _busy_ns(threads) / 1e6, _parts(threads, device))


def _label(name: str, backward: bool) -> str:
    return f"{name} (backward)" if backward else name


def _events(path: Path, platform: str) -> Iterator[Iterator[Event]]:
    """Of each stream of a GPU or thread of a CPU."""

    def instructions(line: Any) -> Iterator[Event]:
        for event in line.events:
            stats = {key: value for key, value in event.stats if key in ("hlo_op", "hlo_module")}
            if platform != "cpu" or "hlo_op" in stats:
                # In a command buffer the kernel alone has the name of the instruction.
                names = tuple(_key(str(name)) for name in (stats.get("hlo_op"), event.name) if name)
                end = event.start_ns + event.duration_ns
                yield event.start_ns, end, str(stats.get("hlo_module", "")).split("(")[0], names

    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        if plane.name.startswith("/host:CPU" if platform == "cpu" else f"/device:{platform.upper()}"):
            yield from (instructions(line) for line in plane.lines if platform == "cpu" or "Stream" in line.name)


def _busy_ns(threads: Sequence[Sequence[Event]]) -> float:
    busy = end = 0.0
    for low, high, *_ in sorted(event for events in threads for event in events):
        busy += max(0.0, high - max(low, end))
        end = max(end, high)
    return busy


def _own_ns(events: Sequence[Event]) -> list[float]:
    """Duration of each event of one thread without that of the events inside it."""
    own = [end - start for start, end, *_ in events]
    around: list[int] = []
    for index in sorted(range(len(events)), key=lambda i: (events[i][0], -events[i][1])):
        start, end = events[index][:2]
        while around and events[around[-1]][1] <= start:
            around.pop()
        if around:
            own[around[-1]] -= min(end, events[around[-1]][1]) - start
        around.append(index)
    return own


def _parts(threads: Sequence[Sequence[Event]], device: jax.Device) -> tuple[Part, ...]:
    names: dict[str, set[str]] = defaultdict(set)
    for events in threads:
        for _, _, program, keys in events:
            names[program].update(keys)
    known = _programs(names, device)
    ms, launches = Counter[Place](), Counter[Place]()
    for events in threads:
        for (_, _, program, keys), own in zip(events, _own_ns(events), strict=True):
            tables = [known.get(program, {})] if program else list(known.values())
            otherwise = keys[-1] if keys[-1].startswith("Memcpy") else UNKNOWN
            place = next((places[key] for places in tables for key in keys if key in places), (otherwise, False))
            ms[place] += own / 1e6
            launches[place] += 1
    return tuple(Part(*place, time_ms, launches[place]) for place, time_ms in ms.most_common())


def _programs(names: dict[str, set[str]], device: jax.Device) -> dict[str, dict[str, Place]]:
    """Places in each program that ran; of several with its name, the one that knows most of what ran."""
    best: dict[str, dict[str, Place]] = {}
    for executable in device.client.live_executables():
        for module in executable.hlo_modules():
            if ran := names.get(module.name):
                places = read_places(module.to_string())
                if len(ran & places.keys()) > len(ran & best.get(module.name, {}).keys()):
                    best[module.name] = places
    return best


def read_places(text: str) -> dict[str, Place]:
    """Where in our code each instruction of a compiled program comes from, by its text.

    A fusion that does not say itself has the place of most instructions in it.
    """
    parts = _parts_of_frames(text)
    places: dict[str, Place] = {}
    inside: dict[str, Counter[Place]] = defaultdict(Counter)
    silent, computation = [], ""
    for line in text.splitlines():
        if line.endswith("{") and (head := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(", line)):
            computation = head[1]
        elif found := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)", line):
            name, rest = found.groups()
            frame = re.search(r"\bstack_frame_id=(\d+)", rest)
            if frame and (part := parts.get(frame[1])):
                operation = re.search(r'\bop_name="([^"]*)"', rest)
                places[_key(name)] = place = part, bool(operation) and "transpose(" in operation[1]
                inside[computation][place] += 1
            elif called := re.search(r"\b(?:calls|to_apply)=%?([\w.\-]+)", rest):
                silent.append((name, called[1]))
    for name, called in silent:
        if inside[called]:
            places[_key(name)] = inside[called].most_common(1)[0][0]
    return places


def _key(name: str) -> str:
    """An instruction's name as kernels have it too."""
    return re.sub(r"[.\-]", "_", name)


def _parts_of_frames(text: str) -> dict[str, str]:
    """Part of each stack frame in a program's text that has a caller of ours."""
    blocks = {name: re.search(rf"^{name}\n((?:\d+ .*\n)*)", text, re.M) for name in TABLES}
    files, functions, locations, frames = (
        dict(re.findall(r"^(\d+) (.*)$", block[1], re.M)) if block else {} for block in blocks.values()
    )

    def number(row: str, key: str) -> str:
        return re.search(rf"\b{key}=(\d+)", row)[1]

    parents = {frame: int(number(row, "parent_frame_id")) for frame, row in frames.items()}
    shift = 0 if 0 in parents.values() else 1  # jax 0.10 and 0.11 print one too many, and 1 where there is none

    def chain(frame: str) -> Iterator[tuple[str, str]]:
        seen = set()
        while frame in frames and frame not in seen:
            seen.add(frame)
            location = locations[number(frames[frame], "file_location_id")]
            yield (
                files[number(location, "file_name_id")].strip('"'),
                functions[number(location, "function_name_id")].strip('"'),
            )
            frame = str(parents[frame] - shift)

    return {frame: part for frame in frames if (part := _part(chain(frame)))}


def _part(chain: Iterator[tuple[str, str]]) -> str | None:
    """Of a stack, innermost first: file and class or function, and behind it the layer that it calls."""
    ours = []
    for path, function in chain:
        file = path.rpartition(f"/{PACKAGE.name}/")[2]
        if file != path and (PACKAGE / file).is_file():
            ours.append((file, function.split(".")[0]))
    if not ours:
        return None
    file, name = next((one for one in ours if one[0] not in HELPERS), ours[-1])
    inner = ours[0]
    helper = f" > {inner[1]}" if inner[0] == "models/layers.py" and inner != (file, name) else ""
    return f"{file}:{name}{helper}"
