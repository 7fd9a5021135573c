"""What there is in the world: kinds of things with their sizes and details, and the colours that have names."""

from dataclasses import dataclass

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (208, 28, 36),
    "orange": (255, 132, 0),
    "yellow": (250, 218, 40),
    "green": (24, 148, 62),
    "blue": (34, 84, 214),
    "purple": (136, 44, 172),
    "white": (246, 246, 246),
    "black": (30, 30, 34),
}
# Walls are paler than things, so that a thing stands out on a wall of the same name.
WALLS: dict[str, Colour] = {
    "red": (190, 84, 70),
    "yellow": (232, 202, 112),
    "green": (104, 178, 112),
    "blue": (104, 148, 212),
    "white": (232, 232, 226),
    "grey": (128, 128, 134),
    "pink": (240, 160, 184),
}
INK: Colour = (38, 38, 42)


@dataclass(frozen=True)
class SmallKind:
    """A kind of thing that expressions speak of.

    Attributes:
        aspect: width over height.
        details: what tells things of this kind and one colour apart; empty where nothing does.
        colours: names in COLOURS.
        mounted: hangs on walls and poles instead of standing on the ground.
        rare: seldom in training, the targets of test_b.
    """

    aspect: float
    details: tuple[str, ...]
    colours: tuple[str, ...] = tuple(COLOURS)
    mounted: bool = False
    rare: bool = False


_PATTERNS = ("plain", "striped", "dotted")
SMALL: dict[str, SmallKind] = {
    "cone": SmallKind(0.85, ("plain", "striped")),
    "barrel": SmallKind(0.78, _PATTERNS),
    "bin": SmallKind(0.75, _PATTERNS),
    "hydrant": SmallKind(0.72, ("plain", "striped")),
    "crate": SmallKind(1.1, ("plain", "striped", "crossed")),
    "person": SmallKind(0.42, ("hatted", "carrying", "bare")),
    "sign": SmallKind(1.0, ("round", "square", "triangular"), mounted=True),
    "light": SmallKind(0.45, (), ("red", "yellow", "green"), mounted=True),
    "flag": SmallKind(1.25, ("plain", "striped", "crossed"), mounted=True),
    "suitcase": SmallKind(1.05, ("plain", "striped"), rare=True),
    "mailbox": SmallKind(0.7, ("plain", "dotted"), rare=True),
    "chair": SmallKind(0.75, (), rare=True),
    "parasol": SmallKind(0.95, ("plain", "striped"), rare=True),
    "bicycle": SmallKind(1.55, (), rare=True),
    "clock": SmallKind(1.0, ("round", "square"), mounted=True, rare=True),
    "lantern": SmallKind(0.6, ("plain", "striped"), mounted=True, rare=True),
}

VEHICLES = ("car", "van", "bus", "truck")
# Width and height in metres, seen from the side and from behind; larger than life, to be seen in the whole picture.
VEHICLE_SIZES = {
    "side": {"car": (6.0, 2.1), "van": (6.6, 3.1), "bus": (10.5, 3.7), "truck": (9.0, 3.8)},
    "rear": {"car": (3.3, 2.5), "van": (3.6, 3.5), "bus": (3.9, 4.3), "truck": (4.0, 4.4)},
}
KIOSK_SIZE = (3.8, 3.7)
BUILDINGS = ("house", "tower")
GROUND_KINDS = tuple(name for name, kind in SMALL.items() if not kind.mounted)
MOUNTED_KINDS = tuple(name for name, kind in SMALL.items() if kind.mounted)
LARGE_KINDS = (*VEHICLES, "kiosk", *BUILDINGS, "pole")
