"""Where the tokenizer of a checkpoint lies: beside it, in a place given, or in the local Hugging Face cache."""

import os
from pathlib import Path

from piza_jax.data.tokenize import Tokenizer
from piza_jax.errors import PizaError

FILES = ("tokenizer.json", "vocab.txt")
_NAMES = ("bert-base-uncased", "google-bert/bert-base-uncased")


def find_tokenizer(directory: str | os.PathLike[str], given: str | os.PathLike[str] | None = None) -> Tokenizer:
    """The tokenizer of a checkpoint.

    It is that of ``given``, else the directory's own, else bert-base-uncased from the local Hugging Face cache, whose
    text backbone all published checkpoints have. Nothing is downloaded.

    Args:
        directory: of the checkpoint.
        given: a tokenizer.json, or a folder with tokenizer.json or vocab.txt.

    Raises:
        PizaError: ``given`` holds no tokenizer, none was found anywhere, or the one found is broken or not BERT's.
    """
    if given is not None:
        path = Path(given)
        if path.is_file() and path.name == "vocab.txt":
            return Tokenizer.from_directory(path.parent)
        return Tokenizer.from_file(path) if path.is_file() else Tokenizer.from_directory(path)
    looked = [Path(directory), *_cached()]
    for folder in looked:
        if any((folder / name).is_file() for name in FILES):
            return Tokenizer.from_directory(folder)
    raise PizaError(
        f"found no tokenizer: looked for {' and '.join(FILES)} in {', '.join(map(str, looked))}; give the folder of "
        "bert-base-uncased (its vocab.txt is enough), or put that file into the checkpoint's own"
    )


def _cached() -> list[Path]:
    """Snapshots of bert-base-uncased in the Hugging Face cache, the current one first; where none is, its place."""
    folders = []
    for name in _NAMES:
        repository = _cache() / f"models--{name.replace('/', '--')}"
        snapshots = sorted((repository / "snapshots").glob("*/"))
        main = repository / "refs" / "main"
        current = main.read_text(encoding="utf-8").strip() if main.is_file() else ""
        snapshots.sort(key=lambda folder: folder.name != current)
        folders += snapshots or [repository / "snapshots" / "*"]
    return folders


def _cache() -> Path:
    """Folder of the Hugging Face cache, by the variables that its library reads."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"
