"""Which scenes make up which split; no seed serves two."""

from dataclasses import dataclass

from piza_jax.errors import PizaError

SEEDS_A_SPLIT = 1_000_000


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
        name: of the split.
        place: number of its range of seeds; scene n has the seed place * SEEDS_A_SPLIT + n.
        scenes: how many scenes the default build has.
        targets: "all" kinds, "common" kinds or "rare" kinds; with "rare" the scenes are full of them.
        normal: targets of ordinary size, in small pictures.
    """

    name: str
    place: int
    scenes: int
    targets: str = "all"
    normal: bool = False

    def seed(self, number: int) -> int:
        """Seed of a scene.

        Raises:
            PizaError: if the split has no scene of that number.
        """
        if not 0 <= number < SEEDS_A_SPLIT:
            raise PizaError(f"split {self.name} has scenes 0..{SEEDS_A_SPLIT - 1}, not {number}; ask for one of these")
        return self.place * SEEDS_A_SPLIT + number


# train_s to train_l to val to test_a to test_b about as 10 : 61 : 11 : 11 : 17, like SOREC's expressions.
SMALL_SPLITS = {
    split.name: split
    for split in (
        Split("train_s", 0, 300),
        Split("train_l", 1, 1800),
        Split("val", 2, 300),
        Split("test_a", 3, 300, "common"),
        Split("test_b", 4, 500, "rare"),
    )
}
NORMAL_SPLITS = {
    split.name: split for split in (Split("train", 5, 3000, normal=True), Split("val", 6, 300, normal=True))
}


def find_split(name: str, normal: bool = False) -> Split:
    """A split by its name.

    Raises:
        PizaError: naming the splits that there are.
    """
    splits = NORMAL_SPLITS if normal else SMALL_SPLITS
    if name not in splits:
        variant = "SOREC-mini's normal variant" if normal else "SOREC-mini"
        raise PizaError(f"{variant} has no split {name!r}, only {', '.join(splits)}")
    return splits[name]


def scaled_scenes(splits: dict[str, Split], scale: float) -> dict[str, int]:
    """Split -> number of scenes, the default ones times a scale, at least one each.

    Raises:
        PizaError: if the scale is not above 0, or asks for more scenes than there are seeds.
    """
    if not 0 < scale < float("inf"):
        raise PizaError(f"scale is {scale}; it must be a number above 0, 1 for the default size")
    scenes = {name: max(round(split.scenes * scale), 1) for name, split in splits.items()}
    if max(scenes.values()) > SEEDS_A_SPLIT:
        raise PizaError(f"scale is {scale}: more than {SEEDS_A_SPLIT} scenes in a split; choose a smaller one")
    return scenes
