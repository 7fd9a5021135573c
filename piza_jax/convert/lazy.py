"""Tensors that are read when they are asked for, one at a time."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

Read = Callable[[str], np.ndarray]
BUDGET = 64 << 20  # bytes; pages of a mapped file count as the process's memory once they are touched


class LazyTensors(Mapping[str, np.ndarray]):
    """Mapping from a tensor's name to its array; only looking a name up reads anything.

    Attributes:
        shapes: name -> shape, of every tensor.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], read: Read):
        self.shapes = dict(shapes)
        self._read = read

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.shapes:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __contains__(self, name: object) -> bool:
        return name in self.shapes


def shapes_of(tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Name -> shape, without reading the arrays of a ``LazyTensors``."""
    if isinstance(tensors, LazyTensors):
        return tensors.shapes
    return {name: array.shape for name, array in tensors.items()}


def remapped(open_file: Callable[[], Read], budget: int = BUDGET) -> Read:
    """Reading from a mapped file that is opened anew after every ``budget`` bytes.

    Args:
        open_file: maps the file; gives a function from a name to a copy of its array.
        budget: bytes to read before the mapping is dropped with all the pages that it holds.
    """
    current: list[Read] = []
    touched = 0

    def read(name: str) -> np.ndarray:
        nonlocal touched
        if not current or touched > budget:
            current.clear()
            current.append(open_file())
            touched = 0
        array = current[0](name)
        touched += array.nbytes
        return array

    return read
