"""A plan as text."""

from collections import defaultdict

from piza_jax.plan.plan import Plan
from piza_jax.plan.programs import Measured
from piza_jax.plan.roofline import Times


def text(plan: Plan) -> str:
    """Lines for a terminal: memory, work, traffic, times and what is unknown, of each device."""
    devices = 1
    for size in plan.mesh.values():
        devices *= size
    mesh = " x ".join(f"{name} {size}" for name, size in plan.mesh.items())
    settings = ", ".join(f"{name} {value}" for name, value in plan.config.items() if value not in ("", []))
    lines = [
        f"{plan.topology or 'here'}: {devices} x {plan.device}, mesh {mesh}",
        settings,
        f"{plan.counts['trained']:,} parameters are trained, {plan.counts['frozen']:,} are frozen",
        "",
        f"training step, batch {plan.step.batch} ({plan.step.batch / devices:g} a device)",
        *_program(plan, plan.step, plan.step_times, devices),
    ]
    if plan.hours:
        lines.append(f"  {plan.length}: {_range(*plan.hours)} hours")
    if plan.largest_batch is not None:
        lines.append(f"  largest batch that fits: {plan.largest_batch} ({plan.largest_batch / devices:g} a device)")
        lines.append(f"  compiled: {', '.join(_compiled(plan, batch, devices) for batch in sorted(plan.tried))}")
        if max(plan.tried) == plan.largest_batch:
            lines.append("  larger ones were not tried")
    if plan.zoom is not None:
        lines += ["", f"zoom of {plan.zoom.batch} photos ({plan.zoom.batch / devices:g} a device), all its steps"]
        lines += _program(plan, plan.zoom, plan.zoom_times, devices)
    return "\n".join([*lines, "", "not known:", *(f"  - {sentence}" for sentence in plan.unknown)])


def _compiled(plan: Plan, batch: int, devices: int) -> str:
    """Of the search: samples a device and the memory that they need."""
    total = plan.tried[batch]
    return f"{batch / devices:g} a device {'more than there is' if total is None else _gib(total)}"


def _program(plan: Plan, measured: Measured, times: Times | None, devices: int) -> list[str]:
    usable = f" of {_gib(plan.chip.usable_bytes)}" if plan.chip else ""
    total = "unknown, more than there is" if measured.total is None else f"{_gib(measured.total)}{usable}"
    lines = [f"  memory a device: {total}{'' if measured.fits else ' - DOES NOT FIT'}"]
    lines += [f"    {name:<12} {_gib(size):>12}" for name, size in measured.parts.items() if size]
    if measured.temporaries is not None:
        lines.append(f"    {'temporaries':<12} {_gib(measured.temporaries):>12}  (activations and scratch)")
    lines.append(
        f"  matrix FLOPs: {measured.flops / devices / 1e12:.3f} T a device, {measured.flops / 1e12:.2f} T in all"
    )
    if measured.traffic is not None:
        lines.append(f"  memory traffic a device: {_gib(measured.traffic)} (loops counted once)")
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0])
    for collective in measured.collectives:
        entry = sums[collective.kind, "+".join(collective.axes) or "?"]
        entry[0] += collective.times
        entry[1] += collective.bytes * collective.times
    lines += [
        f"  {kind} over {axes}: {int(count)} of {_mib(size)} in all" for (kind, axes), (count, size) in sums.items()
    ]
    if times is None:
        return lines
    parts = {"compute": times.compute, "memory": times.memory, "links": times.links}
    named = [f"{name} {1000 * value:.3g} ms" for name, value in parts.items() if value is not None]
    if times.deformable:
        named.append(f"deformable attention {_range(*(1000 * value for value in times.deformable))} ms")
    lines.append(f"  roofline: {', '.join(named)}; limiter: {times.limiter}")
    lines.append(f"  time: {_range(1000 * times.low, 1000 * times.high)} ms")
    rates = measured.batch / times.high, measured.batch / times.low
    each = [rate / devices for rate in rates]
    lines.append(f"  examples/s: {_range(*each)} a device, {_range(*rates)} in all")
    return lines


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**27 else _mib(size)


def _mib(size: float) -> str:
    return f"{size / 2**20:.2f} MiB"


def _range(low: float, high: float) -> str:
    return f"{low:.3g}..{high:.3g}"
