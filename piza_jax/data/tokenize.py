"""Expressions to token ids: BERT's WordPiece, from a file or trained on the data's own texts."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from piza_jax.errors import PizaError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # in the order of BERT's vocabularies
DELIMITERS = ("[CLS]", "[SEP]", ".", "?")
CONFIG = "tokenizer_config.json"
# Its settings that change token ids, under the names that a BertNormalizer has for them.
_RULES = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
_CLEANED = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"),
    (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


class Tokenizer:
    """WordPiece with [CLS] ... [SEP] around it; ids are padded with 0. A typed "[SEP]" is ordinary text."""

    def __init__(self, backend: tokenizers.Tokenizer, source: str, clean_up_spaces: bool = False):
        """Wrap a tokenizer of the tokenizers library.

        Args:
            backend: the tokenizer; it is changed.
            source: its name in errors.
            clean_up_spaces: whether decode also joins what stands around apostrophes, as in "the car's".

        Raises:
            PizaError: it lacks [PAD] as token 0, or [UNK], [CLS], [SEP], "." or "?".
        """
        self._backend, self._source, self._clean_up_spaces = backend, source, clean_up_spaces
        # A stored tokenizer may cut long texts without a word, or take a typed "[SEP]" for the real one.
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        missing = [token for token in (*SPECIAL_TOKENS[:4], ".", "?") if backend.token_to_id(token) is None]
        if missing:
            raise PizaError(f"the vocabulary of {source} lacks {', '.join(missing)}; take one of an uncased BERT")
        if backend.token_to_id("[PAD]") != 0:
            raise PizaError(f"[PAD] is token {backend.token_to_id('[PAD]')} in {source}; it must be token 0")
        vocabulary = backend.get_vocab()
        self._delimiter_ids = tuple(vocabulary[token] for token in DELIMITERS)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "Tokenizer":
        """Read a tokenizer.json; PizaError if it is absent, broken or has no BERT tokens."""
        if not Path(path).is_file():
            raise PizaError(f"there is no tokenizer file {path}")
        try:
            backend = tokenizers.Tokenizer.from_file(os.fspath(path))
        except Exception as error:  # the library raises bare Exception
            raise PizaError(f"{path} is not a tokenizer.json: {error}") from error
        return cls(backend, os.fspath(path))

    @classmethod
    def from_directory(cls, directory: str | os.PathLike[str]) -> "Tokenizer":
        """Read tokenizer.json of a directory, or else its vocab.txt with the rules of bert-base-uncased.

        Of a tokenizer_config.json beside it, do_lower_case, strip_accents, tokenize_chinese_chars and
        clean_up_tokenization_spaces change those rules, as in transformers.

        Raises:
            PizaError: neither file, a broken one, or one with other special tokens than BERT's.
        """
        folder = Path(directory)
        settings = _read_settings(folder / CONFIG)
        if (folder / "tokenizer.json").is_file():
            found = cls.from_file(folder / "tokenizer.json")
        elif (folder / "vocab.txt").is_file():
            found = cls(_word_piece(_read_vocabulary(folder / "vocab.txt")), str(folder / "vocab.txt"))
        else:
            raise PizaError(f"{folder} holds neither tokenizer.json nor vocab.txt")
        _apply(settings, found._backend, folder / CONFIG)
        found._clean_up_spaces = bool(settings.get("clean_up_tokenization_spaces", False))
        return found

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Learn a vocabulary from texts, with BERT's rules and special tokens [PAD] = 0, [UNK], [CLS], [SEP], [MASK].

        Args:
            texts: the expressions.
            vocab_size: most tokens to learn; fewer where the texts have no more, more where they hold more letters.
        """
        texts = [with_full_stop(text) for text in texts]
        learner = _bert_rules(models.WordPiece(vocab={"[UNK]": 0}, unk_token="[UNK]"))
        letters = sorted({letter for text in texts for letter in learner.normalizer.normalize_str(text)} - set(" "))
        # The library numbers word-inner letters in an order that changes from run to run and breaks ties by number;
        # given as special tokens they have fixed numbers, and so the whole vocabulary is the same each time.
        fixed = [*SPECIAL_TOKENS, *sorted({*letters, ".", "?"}), *(f"##{letter}" for letter in letters)]
        trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=fixed, show_progress=False)
        learner.train_from_iterator(texts, trainer)
        return cls(_word_piece(learner.get_vocab()), "the trained tokenizer")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write tokenizer.json, whole or not at all; PizaError if it cannot be written."""
        temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
        try:
            Path(temporary).write_text(self._backend.to_str(pretty=True), encoding="utf-8")
            os.replace(temporary, path)
        except OSError as error:
            Path(temporary).unlink(missing_ok=True)
            raise PizaError(f"cannot write {path}: {error}") from error

    def settings(self) -> dict[str, Any]:
        """Content of a tokenizer_config.json that goes with tokenizer.json, as transformers has it."""
        rules = json.loads(self._backend.to_str()).get("normalizer") or {}
        lower = {"do_lower_case": rules["lowercase"]} if "lowercase" in rules else {}
        return {"tokenizer_class": "BertTokenizer", "clean_up_tokenization_spaces": self._clean_up_spaces, **lower}

    @property
    def vocab_size(self) -> int:
        """Number of token ids: one more than the largest, so that an embedding of this many rows serves all."""
        return max(self._backend.get_vocab().values()) + 1

    @property
    def delimiter_ids(self) -> tuple[int, ...]:
        """Ids of [CLS], [SEP], "." and "?", between which sub-sentences lie."""
        return self._delimiter_ids

    def tokens(self, expression: str) -> list[str]:
        """The token strings of an expression as encode sees it, [CLS] to [SEP]."""
        return self._encode(expression).tokens

    def encode(self, expression: str, max_tokens: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of an expression, a full stop added where it has none at its end.

        Args:
            expression: the sentence.
            max_tokens: length L of the result; [CLS], [SEP] and the full stop count.

        Returns:
            input_ids int32 [L], 0 after the last token; token_mask bool [L], True = token.

        Raises:
            PizaError: the expression is empty or longer than max_tokens.
        """
        encoding = self._encode(expression)
        count = len(encoding.ids)
        if count > max_tokens:
            raise PizaError(
                f"the expression has {count} tokens ([CLS], [SEP] and full stop included) and the limit is "
                f"{max_tokens}: shorten it or raise the limit: {_shortened(expression)}"
            )
        input_ids = np.zeros(max_tokens, np.int32)
        input_ids[:count] = encoding.ids
        return input_ids, np.arange(max_tokens) < count

    def decode(self, input_ids: Iterable[int]) -> str:
        """Text of token ids: pieces joined, blanks before punctuation taken away, special tokens written out.

        Args:
            input_ids: each below vocab_size.
        """
        text = self._backend.decode([int(index) for index in input_ids], skip_special_tokens=False)
        for parted, joined in _CLEANED if self._clean_up_spaces else ():
            text = text.replace(parted, joined)
        return text

    def _encode(self, expression: str) -> tokenizers.Encoding:
        encoding = self._backend.encode(with_full_stop(expression))
        if not set(encoding.ids) - set(self.delimiter_ids):
            raise PizaError(f"the expression {expression!r} is empty; say what to look for")
        return encoding

    def __getstate__(self) -> tuple[str, str, bool]:
        return self._backend.to_str(), self._source, self._clean_up_spaces

    def __setstate__(self, state: tuple[str, str, bool]) -> None:
        self.__init__(tokenizers.Tokenizer.from_str(state[0]), *state[1:])  # type: ignore[misc]


def with_full_stop(expression: str) -> str:
    """The expression without outer blanks, with ". " added unless it ends with "." (as the reference does)."""
    text = expression.strip()
    return text if text.endswith(".") else text + ". "


def _read_vocabulary(path: Path) -> dict[str, int]:
    """Tokens of a vocab.txt, one a line, and their line numbers."""
    try:
        tokens = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PizaError(f"cannot read {path}: {error}") from error
    tokens = [token.rstrip("\r") for token in (tokens[:-1] if tokens[-1] == "" else tokens)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise PizaError(f"{path} holds {len(tokens) - len(vocabulary)} repeated tokens; each line must differ")
    return vocabulary


def _read_settings(path: Path) -> dict[str, Any]:
    """Content of a tokenizer_config.json, {} where there is none; PizaError if its special tokens are not BERT's."""
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PizaError(f"cannot read {path}: {error}") from error
    if not isinstance(settings, dict):
        raise PizaError(f"{path} is not the configuration of a tokenizer")
    for token in SPECIAL_TOKENS:
        key = f"{token[1:-1].lower()}_token"
        given = settings.get(key) or token
        content = given.get("content") if isinstance(given, dict) else given
        if content != token:
            raise PizaError(f"{path}: {key} is {content!r}; only BERT's {token} is supported")
    return settings


def _apply(settings: Mapping[str, Any], backend: tokenizers.Tokenizer, path: Path) -> None:
    """Change the backend's normalizer as tokenizer_config.json says; what that leaves out stays."""
    changes = {ours: settings[theirs] for theirs, ours in _RULES.items() if theirs in settings}
    rules = json.loads(backend.to_str())["normalizer"] or {}
    if all(rules.get(name) == value for name, value in changes.items()):
        return
    if rules.pop("type", None) != "BertNormalizer":
        raise PizaError(f"{path} sets {', '.join(changes)}, but the tokenizer.json beside it has no BertNormalizer")
    backend.normalizer = normalizers.BertNormalizer(**{**rules, **changes})


def _bert_rules(model: models.WordPiece) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return backend


def _word_piece(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    backend = _bert_rules(models.WordPiece(vocab=vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.add_special_tokens([token for token in SPECIAL_TOKENS if token in vocabulary])
    if "[CLS]" in vocabulary and "[SEP]" in vocabulary:  # otherwise the check of the special tokens reports it
        frame = [(token, vocabulary[token]) for token in ("[SEP]", "[CLS]")]
        backend.post_processor = processors.BertProcessing(*frame)
    return backend


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
