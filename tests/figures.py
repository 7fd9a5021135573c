"""Figures that tests measure; pytest prints the largest of each at the end of its run."""

LARGEST: dict[str, float] = {}


def note(name: str, value: float) -> None:
    """Keep the largest value under a name."""
    LARGEST[name] = max(float(value), LARGEST.get(name, 0.0))
