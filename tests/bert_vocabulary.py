"""A vocabulary of bert-base-uncased's form: special tokens at its ids, letters, pieces and words; no download."""

import json
from pathlib import Path

from piza_jax.data.tokenize import SPECIAL_TOKENS, Tokenizer

# transformers' GroundingDINO has the ids of [CLS], [SEP], full stop and question mark written into its code.
FIXED = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
CAPTIONS = [
    "a cat. a remote control.",
    "the red car on the left of the street. a traffic light. the dog's bowl.",
    "A man in a yellow jacket, who doesn't look at the camera; a half-open door!",
    "café naïve 中国 Straße παράδειγμα",
]


def write_vocabulary(folder: Path, texts: list[str] | None = None, size: int = 3000) -> Path:
    """Write vocab.txt into a folder and return its path; ids without a token are [unusedN]."""
    learnt = Tokenizer.train([*CAPTIONS, *(texts or []), *"abcdefghijklmnopqrstuvwxyz0123456789,;!'\"-()"], size)
    learnt.save(folder / "learnt.json")
    words = json.loads((folder / "learnt.json").read_text(encoding="utf-8"))["model"]["vocab"]
    (folder / "learnt.json").unlink()
    rest = iter(sorted(set(words) - set(SPECIAL_TOKENS) - {".", "?"}, key=words.__getitem__))
    lines = [FIXED.get(i) or (f"[unused{i}]" if i < 999 else next(rest, f"[unused{i}]")) for i in range(1100)]
    path = folder / "vocab.txt"
    path.write_text("\n".join([*lines, *rest]) + "\n", encoding="utf-8")
    return path
