"""The upper rows of a JPEG without the rest.

Decoders such as Pillow's have no call for a region. But a JPEG stores its blocks row by row, and how many rows there
are is two bytes of its header (ITU-T T.81, B.2.2): a file that claims fewer is decoded as far as that, to the very same
pixels, and what follows is passed over.
"""

_SEQUENTIAL = (0xC0, 0xC1)  # start of a frame whose rows are complete once they are read
_OTHER_FRAMES = set(range(0xC2, 0xD0)) - {0xC4, 0xC8, 0xCC}  # progressive, lossless, arithmetic
_SCAN, _RESTARTS = 0xDA, 0xDD


def claim_rows(data: bytes, rows: int) -> tuple[bytes, bool]:
    """A JPEG that says that it has only ``rows`` rows.

    Args:
        data: an encoded image.
        rows: at least 1.

    Returns:
        The changed JPEG and True, or data itself and False where this cannot be done: another format, a JPEG that is
        progressive, in several scans or with restart markers, or one that has no more rows than that.
    """
    place = _frame(data)
    if place is None or int.from_bytes(data[place + 5 : place + 7]) <= rows:
        return data, False
    return data[: place + 5] + rows.to_bytes(2) + data[place + 7 :], True


def _frame(data: bytes) -> int | None:
    """Where the frame header of a sequential JPEG with a single scan begins."""
    if data[:2] != b"\xff\xd8":
        return None
    place, frame = 2, None
    while place + 10 <= len(data) and data[place] == 0xFF:
        kind, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        if kind == 0xFF:  # a filling byte before a marker
            place += 1
        elif kind == _SCAN:
            single = frame is not None and data[place + 4] == data[frame + 9]
            return frame if single else None
        elif kind in _OTHER_FRAMES or kind == _RESTARTS:
            return None
        else:
            frame = place if kind in _SEQUENTIAL else frame
            place += 2 + length
    return None
