"""The largest batch of a step that fits a device, in few compilations."""

from collections.abc import Callable, Mapping

from piza_jax.plan.programs import Measured

_MOST_COMPILES = 8


def largest_batch(
    measure: Callable[[int], Measured],
    first: Measured,
    unit: int,
    limit: float,
    tried: dict[int, int | None],
    say: Callable[[str], None],
) -> int:
    """Search in steps of one sample a device.

    Memory grows almost evenly with the batch, and a straight line says where it meets the limit. Near it the compiler
    computes more again to keep below, so that more may fit than the line says: then in steps of 1, 2, 4 samples.

    Args:
        measure: compiles the step for a batch over all devices.
        first: what it gave for some batch.
        unit: devices that a batch is divided over.
        limit: bytes of a device.
        tried: {batch: bytes that it needs on a device}, with that of ``first``; those compiled are added.
        say: is told what is being done.

    Returns:
        The largest batch over all devices that was compiled and fits; 0 if none does.
    """
    fits = {first.batch // unit: first.fits}

    def attempt(samples: int) -> None:
        say(f"compiling the training step, {samples} samples a device")
        found = measure(samples * unit)
        fits[samples], tried[found.batch] = found.fits, found.total

    attempt(first.batch // unit + 1 if first.batch == unit else first.batch // unit // 2)
    growth = 1
    while len(fits) < _MOST_COMPILES:
        good, bad = max((n for n in fits if fits[n]), default=0), min((n for n in fits if not fits[n]), default=None)
        if bad is not None and bad <= good + 1:
            break
        guess = _on_line({n // unit: total for n, total in tried.items() if total}, limit) or 0
        if guess <= good:
            guess, growth = good + growth, 2 * growth
        if bad is not None and guess >= bad:
            guess = (good + bad) // 2
        attempt(guess)
    return max((n for n in fits if fits[n]), default=0) * unit


def _on_line(totals: Mapping[int, int], limit: float) -> int | None:
    """Samples at which a straight line through the first and last of {samples: bytes} meets the limit."""
    low, high = min(totals, default=0), max(totals, default=0)
    slope = (totals[high] - totals[low]) / (high - low) if high > low else 0.0
    return int(low + (limit - totals[low]) / slope) if slope > 0 else None
