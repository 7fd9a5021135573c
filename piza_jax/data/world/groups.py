"""Which small things come together: some looks in a scene, repeated and varied, so that each has its look-alikes.

Half of the things in a scene share their look with no other, though each has others that differ in one attribute. SOREC
is like that: three sentences of four name no side, and tell their target by what it looks like and what stands by it.
"""

from dataclasses import dataclass

import numpy as np

from piza_jax.data.world.kinds import SMALL

Name = tuple[str, str, str | None]  # kind, colour, detail

_LOOKS = 8  # for the ground, and as many to hang
_RARE_LOOKS = 5  # of them in scenes that are full of rare kinds
_RARE_SCENES = 30  # percent of ordinary scenes in which one look is of a rare kind
_FAITHFUL = 30  # percent of a group's things that have the group's look itself; the others differ in one attribute


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
    """Looks for the ground and looks to hang; each colour comes before one comes again.

    Args:
        rng: source of chance.
        rare: most looks are of rare kinds; else at most one, in few scenes.
    """
    chosen = []
    for mounted in (False, True):
        common = [name for name, kind in SMALL.items() if kind.mounted == mounted and not kind.rare]
        scarce = [name for name, kind in SMALL.items() if kind.mounted == mounted and kind.rare]
        number = _RARE_LOOKS if rare else int(int(rng.integers(100)) < _RARE_SCENES)
        picked = _each_in_turn(rng, scarce, number) + _each_in_turn(rng, common, _LOOKS - number)
        colours = [int(index) for index in rng.permutation(_LOOKS)]
        looks = []
        for place, kind in enumerate(picked):
            details = SMALL[kind].details
            detail = details[int(rng.integers(len(details)))] if details else None
            names = SMALL[kind].colours
            looks.append((kind, names[colours[place] % len(names)], detail))
        chosen.append(tuple(looks))
    return Palette(*chosen)


def _each_in_turn(rng: np.random.Generator, kinds: list[str], number: int) -> list[str]:
    """So many kinds, each as often as any other or once more."""
    order = [kinds[index] for index in rng.permutation(len(kinds))]
    return [order[place % len(order)] for place in range(number)]


def _dressed(rng: np.random.Generator, kind: str, colour: str, detail: str | None) -> Name:
    """A kind in a look that may not be its own: colour and detail stay where the kind has them."""
    names, details = SMALL[kind].colours, SMALL[kind].details
    if colour not in names:
        colour = names[int(rng.integers(len(names)))]
    if detail not in details:
        detail = details[int(rng.integers(len(details)))] if details else None
    return kind, colour, detail
