"""Pickles that hold data alone: lists, dictionaries, sets, tuples, numbers, strings and bytes."""

import io
import pickle
from pathlib import Path
from typing import Any, NoReturn

from piza_jax.errors import PizaError


class _DataOnly(pickle.Unpickler):
    """Knows no class and no function, so that a file can neither run code nor import anything."""

    def __init__(self, file: io.BufferedIOBase, path: Path):
        super().__init__(file, encoding="utf-8")  # text of Python 2, which wrote the released files
        self._path = path

    def find_class(self, module: str, name: str) -> NoReturn:
        raise PizaError(
            f"{self._path} asks for {module}.{name}; a file of referring expressions holds plain lists, dictionaries, "
            "numbers and strings, so this one was not read: fetch it again from its home page"
        )


def load(path: Path) -> Any:
    """Content of a pickle without running anything in it.

    Raises:
        PizaError: the file cannot be read, is damaged, or holds anything but plain data.
    """
    try:
        with path.open("rb") as file:
            return _DataOnly(file, path).load()
    except PizaError:
        raise
    except Exception as error:  # damaged pickles raise nearly anything
        raise PizaError(f"cannot read {path} ({type(error).__name__}: {error}); fetch it again") from error
