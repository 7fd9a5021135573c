"""JSON that keeps the line on which each entry of its lists begins, for errors that a person can follow."""

import json
import re
from typing import Any

_BLANK = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class Lines:
    """Line numbers, from 1, of ascending positions in a text."""

    def __init__(self, text: str):
        self._text, self._position, self._line = text, 0, 1

    def at(self, position: int) -> int:
        """Line of a position that is not before the last one asked for."""
        self._line += self._text.count("\n", self._position, position)
        self._position = position
        return self._line


def read_list(text: str, start: int = 0, lines: Lines | None = None) -> tuple[list[tuple[int, Any]], int]:
    """Entries of the list that begins at ``start``, each with its line, and the position after the list.

    Raises:
        json.JSONDecodeError: the text is no list there, or damaged.
    """
    lines = lines or Lines(text)
    found: list[tuple[int, Any]] = []
    position = _skip(text, _expect(text, start, "["))
    if text[position : position + 1] == "]":
        return found, position + 1
    while True:
        value, end = _DECODER.raw_decode(text, position)
        found.append((lines.at(position), value))
        position = _skip(text, end)
        if text[position : position + 1] == "]":
            return found, position + 1
        position = _skip(text, _expect(text, position, ","))


def read_object(text: str) -> dict[str, Any]:
    """The object that a text is; values that are lists become lists of (line, entry).

    Raises:
        json.JSONDecodeError: the text is no object, or damaged.
    """
    lines = Lines(text)
    found: dict[str, Any] = {}
    position = _skip(text, _expect(text, 0, "{"))
    while text[position : position + 1] != "}":
        key, end = _DECODER.raw_decode(text, position)
        if not isinstance(key, str):
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, position)
        position = _skip(text, _expect(text, end, ":"))
        if text[position : position + 1] == "[":
            found[key], position = read_list(text, position, lines)
        else:
            found[key], position = _DECODER.raw_decode(text, position)
        position = _skip(text, position)
        if text[position : position + 1] != "}":
            position = _skip(text, _expect(text, position, ","))
    check_end(text, position + 1)
    return found


def _skip(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    assert match is not None  # it matches nothing at least
    return match.end()


def _expect(text: str, position: int, mark: str) -> int:
    position = _skip(text, position)
    if text[position : position + 1] != mark:
        raise json.JSONDecodeError(f"Expecting {mark!r}", text, position)
    return position + 1


def check_end(text: str, position: int) -> None:
    """Raise json.JSONDecodeError if anything but blanks follows a position."""
    rest = _skip(text, position)
    if rest != len(text):
        raise json.JSONDecodeError("Extra data", text, rest)
