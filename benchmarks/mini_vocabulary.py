"""The WordPiece vocabulary of piza-mini: ``python -m benchmarks.mini_vocabulary --sorec=trainS.json --output=DIR``.

Learnt from the expressions of SOREC's train_s and of SOREC-mini's train_s and normal pictures, 2048 tokens.
"""

import argparse
import json
from pathlib import Path

from piza_jax.data.mini_source import MiniPictures, MiniSource
from piza_jax.data.tokenize import Tokenizer

SIZE, SCENES = 2048, 300


def main(arguments: list[str] | None = None) -> None:
    """Write DIR/tokenizer.json; the same bytes each time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sorec", required=True, type=Path, help="SOREC's own annotation file of train_s")
    parser.add_argument("--output", required=True, type=Path, help="folder")
    options = parser.parse_args(arguments)
    texts = [record["ref"] for record in json.loads(options.sorec.read_text(encoding="utf-8"))]
    texts += MiniSource("train_s", SCENES).expressions() + MiniPictures("train", SCENES).expressions()
    tokenizer = Tokenizer.train(texts, SIZE)
    options.output.mkdir(parents=True, exist_ok=True)
    tokenizer.save(options.output / "tokenizer.json")
    print(f"{tokenizer.vocab_size} tokens from {len(texts)} texts in {options.output / 'tokenizer.json'}")


if __name__ == "__main__":
    main()
