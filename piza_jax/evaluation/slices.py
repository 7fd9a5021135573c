"""Where to cut a photo: boxes of a tile grid and of a sliding window, in order of rows and then columns."""

import numpy as np

from piza_jax.errors import PizaError


def grid(photo_wh: tuple[int, int], rows: int, columns: int) -> np.ndarray:
    """Tiles that share no pixel and differ by at most a pixel in each side.

    Args:
        photo_wh: width and height of the photo, pixels.
        rows: how many tiles from top to bottom; a photo of fewer pixels than that has one a pixel.
        columns: how many from left to right.

    Returns:
        int32 [S, 4], xyxy photo pixels.

    Raises:
        PizaError: a number below 1.
    """
    _check_photo(photo_wh)
    if rows < 1 or columns < 1:
        raise PizaError(f"a grid of {rows} x {columns} tiles holds none; give at least one row and one column")
    counts = min(columns, photo_wh[0]), min(rows, photo_wh[1])
    edges = [np.arange(count + 1) * side // count for count, side in zip(counts, photo_wh, strict=True)]
    return _boxes((edges[0][:-1], edges[0][1:]), (edges[1][:-1], edges[1][1:]))


def sliding(photo_wh: tuple[int, int], slice_wh: tuple[int, int], overlap: float = 0.2) -> np.ndarray:
    """Windows of one size, each moved on by that size less the overlap, as SAHI places them (Akyon et al. 2022).

    The last one of a row or column ends at the photo's edge and keeps its size. A photo that is smaller than a window
    in one direction is not cut in that direction.

    Args:
        photo_wh: width and height of the photo, pixels.
        slice_wh: width and height of a window, pixels.
        overlap: of neighbours, as a share of the window's side, from 0 up to but not 1; cut to whole pixels.

    Returns:
        int32 [S, 4], xyxy photo pixels.

    Raises:
        PizaError: a window without pixels or an overlap outside its range.
    """
    _check_photo(photo_wh)
    if min(slice_wh) < 1:
        raise PizaError(f"a sliding window of {slice_wh[0]} x {slice_wh[1]} pixels sees nothing; give at least 1 x 1")
    if not 0 <= overlap < 1:
        raise PizaError(f"the overlap of sliding windows is {overlap}; it must be at least 0 and below 1")
    across, down = (_windows(*sides, overlap) for sides in zip(photo_wh, slice_wh, strict=True))
    return _boxes(across, down)


def whole(photo_wh: tuple[int, int]) -> np.ndarray:
    """The photo as its only slice, int32 [1, 4], xyxy photo pixels."""
    _check_photo(photo_wh)
    return np.array([[0, 0, *photo_wh]], np.int32)


def _windows(photo: int, window: int, overlap: float) -> tuple[np.ndarray, np.ndarray]:
    """First pixel and end of each window along one side."""
    step = window - int(overlap * window)
    count = 1 + max(-(-(photo - window) // step), 0)
    end = np.minimum(window + step * np.arange(count), photo)
    return np.maximum(end - window, 0), end


def _boxes(across: tuple[np.ndarray, np.ndarray], down: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    top, left = np.meshgrid(down[0], across[0], indexing="ij")
    bottom, right = np.meshgrid(down[1], across[1], indexing="ij")
    return np.stack([left, top, right, bottom], axis=-1).reshape(-1, 4).astype(np.int32)


def _check_photo(photo_wh: tuple[int, int]) -> None:
    if min(photo_wh) < 1:
        raise PizaError(f"a photo of {photo_wh[0]} x {photo_wh[1]} pixels cannot be cut into slices")
