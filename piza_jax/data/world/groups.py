"""Which small things come together: few looks in a scene, repeated and varied, so that each has its look-alikes."""

from dataclasses import dataclass

import numpy as np

from piza_jax.data.world.kinds import SMALL

Name = tuple[str, str, str | None]  # kind, colour, detail

_RARE_SCENES = 12  # percent of ordinary scenes in which one look is of a rare kind
_FAITHFUL = 45  # percent of a group's things that have the group's look itself; the others differ in one attribute


@dataclass(frozen=True)
class Palette:
    """The looks of a scene, for the ground and for walls and poles."""

    ground: tuple[Name, ...]
    mounted: tuple[Name, ...]

    def group(self, rng: np.random.Generator, size: int, mounted: bool) -> list[Name]:
        """Looks of a group of things, in the order in which they stand or hang."""
        looks = self.mounted if mounted else self.ground
        base = looks[int(rng.integers(len(looks)))]
        return [base if int(rng.integers(100)) < _FAITHFUL else self._variant(rng, base, looks) for _ in range(size)]

    def _variant(self, rng: np.random.Generator, base: Name, looks: tuple[Name, ...]) -> Name:
        """A look that differs in colour, in detail or in kind."""
        kind, colour, detail = base
        change = int(rng.integers(3))
        if change == 0 and len(SMALL[kind].details) > 1:
            others = [other for other in SMALL[kind].details if other != detail]
            return kind, colour, others[int(rng.integers(len(others)))]
        if change == 1:
            others = sorted({name[1] for name in looks} & set(SMALL[kind].colours) - {colour})
            others = others or [other for other in SMALL[kind].colours if other != colour]
            return kind, others[int(rng.integers(len(others)))], detail
        other = looks[int(rng.integers(len(looks)))]
        return _dressed(rng, other[0], colour, detail)


def make_palette(rng: np.random.Generator, rare: bool) -> Palette:
    """Three looks for the ground and three to hang.

    Args:
        rng: source of chance.
        rare: two of three looks are of rare kinds; else at most one, in few scenes.
    """
    chosen = []
    for mounted in (False, True):
        common = [name for name, kind in SMALL.items() if kind.mounted == mounted and not kind.rare]
        scarce = [name for name, kind in SMALL.items() if kind.mounted == mounted and kind.rare]
        number = 2 if rare else int(int(rng.integers(100)) < _RARE_SCENES)
        picked = [scarce[index] for index in rng.permutation(len(scarce))[:number]]
        picked += [common[index] for index in rng.permutation(len(common))[: 3 - number]]
        colours = [int(index) for index in rng.permutation(8)[:3]]
        looks = []
        for place, kind in enumerate(picked):
            details = SMALL[kind].details
            detail = details[int(rng.integers(len(details)))] if details else None
            names = SMALL[kind].colours
            looks.append((kind, names[colours[place] % len(names)], detail))
        chosen.append(tuple(looks))
    return Palette(*chosen)


def _dressed(rng: np.random.Generator, kind: str, colour: str, detail: str | None) -> Name:
    """A kind in a look that may not be its own: colour and detail stay where the kind has them."""
    names, details = SMALL[kind].colours, SMALL[kind].details
    if colour not in names:
        colour = names[int(rng.integers(len(names)))]
    if detail not in details:
        detail = details[int(rng.integers(len(details)))] if details else None
    return kind, colour, detail
