"""Tokens: BERT's rules, one full stop, exact limits, and the same vocabulary each time."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tokenizers

from piza_jax import PizaError
from piza_jax.data.tokenize import SPECIAL_TOKENS, Tokenizer, with_full_stop
from tests.small_source import TEXTS

# A vocabulary in the form of bert-base-uncased's: special tokens apart, word-inner pieces with ##.
WORDS = ["the", "a", "red", "car", "cars", "un", "##affa", "##ble", "cafe", "中", "国", "sep", *".?,'-![]"]
VOCABULARY = ["[PAD]", *(f"[unused{i}]" for i in range(9)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return Tokenizer.from_directory(folder)


@pytest.fixture(scope="module")
def trained():
    return Tokenizer.train(TEXTS, 120)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The RED car", "the red car ."),
        ("The red car.", "the red car ."),
        ("  red\tcar \n", "red car ."),
        ("red car?", "red car ? ."),
        ("unaffable cars", "un ##affa ##ble cars ."),
        ("Café, red-car!", "cafe , red - car ! ."),
        ("中国 car", "中 国 car ."),
        ("zebra car", "[UNK] car ."),
        ("the car's", "the car ' [UNK] ."),
        ("the\u00a0red\x00 car\ufffd", "the red car ."),
        ("a" * 101, "[UNK] ."),
    ],
)
def test_vocab_txt_follows_the_rules_of_uncased_bert(bert, text, tokens):
    assert bert.tokens(text) == ["[CLS]", *tokens.split(), "[SEP]"]


def test_ids_are_lines_of_vocab_txt(bert):
    input_ids, token_mask = bert.encode("the red car", 8)
    assert input_ids.dtype == np.int32
    assert token_mask.dtype == np.bool_
    assert [VOCABULARY[i] for i in input_ids[:6]] == ["[CLS]", "the", "red", "car", ".", "[SEP]"]
    np.testing.assert_array_equal(input_ids[6:], [0, 0])
    np.testing.assert_array_equal(token_mask, [True] * 6 + [False] * 2)
    assert bert.vocab_size == len(VOCABULARY)
    assert [VOCABULARY[i] for i in bert.delimiter_ids] == ["[CLS]", "[SEP]", ".", "?"]


def test_typed_special_token_is_ordinary_text(bert):
    assert bert.tokens("red [SEP] car") == ["[CLS]", "red", "[", "sep", "]", "car", ".", "[SEP]"]


@pytest.mark.parametrize(("text", "expected"), [("a", "a. "), ("a.", "a."), (" a. ", "a."), ("a?", "a?. "), ("", ". ")])
def test_full_stop_is_added_where_it_lacks(text, expected):
    assert with_full_stop(text) == expected


@pytest.mark.parametrize("text", ["", "   ", ".", "?", "\x00\t", "..?"])
def test_empty_expression_is_an_error(bert, text):
    with pytest.raises(PizaError, match="empty"):
        bert.encode(text, 16)


def test_limit_is_exact_and_its_error_gives_both_counts(bert):
    assert bert.encode("the red car", 6)[1].all()
    with pytest.raises(PizaError, match=r"has 6 tokens .* limit is 5"):
        bert.encode("the red car", 5)


def test_training_puts_the_special_tokens_first_and_learns_the_words(trained):
    assert trained.encode("the red car on the dark road", 16)[0][0] == SPECIAL_TOKENS.index("[CLS]")
    assert trained.encode("zzz", 16)[0][1] == SPECIAL_TOKENS.index("[UNK]")
    assert trained.tokens("The RED car") == ["[CLS]", "the", "red", "car", ".", "[SEP]"]
    assert trained.vocab_size <= 120


def test_training_gives_the_same_vocabulary_in_every_process(trained, tmp_path):
    script = (
        "import sys; from piza_jax.data.tokenize import Tokenizer; from tests.small_source import TEXTS;"
        "Tokenizer.train(TEXTS, 120).save(sys.argv[1])"
    )
    trained.save(tmp_path / "here.json")
    for name in ("one.json", "two.json"):
        subprocess.run([sys.executable, "-c", script, str(tmp_path / name)], check=True)
        assert (tmp_path / name).read_bytes() == (tmp_path / "here.json").read_bytes()


def test_saved_tokenizer_is_the_same_again(trained, tmp_path):
    trained.save(tmp_path / "tokenizer.json")
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]
    for again in (
        Tokenizer.from_file(tmp_path / "tokenizer.json"),
        Tokenizer.from_directory(tmp_path),
        pickle.loads(pickle.dumps(trained)),
    ):
        assert again.delimiter_ids == trained.delimiter_ids
        assert again.vocab_size == trained.vocab_size
        for text in (*TEXTS, "A [SEP] thing?", "Ünusual text"):
            np.testing.assert_array_equal(again.encode(text, 64)[0], trained.encode(text, 64)[0])


def test_stored_truncation_and_padding_are_switched_off(trained, tmp_path):
    trained.save(tmp_path / "tokenizer.json")
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=30)
    backend.save(str(tmp_path / "tokenizer.json"))
    again = Tokenizer.from_directory(tmp_path)
    assert again.tokens(TEXTS[0]) == trained.tokens(TEXTS[0])


def test_unwritable_place_is_an_error_and_leaves_nothing(trained, tmp_path):
    with pytest.raises(PizaError, match="cannot write"):
        trained.save(tmp_path / "absent" / "tokenizer.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["[PAD]", "[UNK]", "[CLS]", "[SEP]", "."], r"lacks \?"),
        (["[PAD]", "[UNK]", ".", "?"], r"lacks \[CLS\], \[SEP\]"),
        (["[UNK]", "[PAD]", "[CLS]", "[SEP]", ".", "?"], r"\[PAD\] is token 1"),
        (["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "?", "a", "a"], "1 repeated"),
    ],
)
def test_unfit_vocabulary_is_an_error_that_says_why(tmp_path, lines, message):
    (tmp_path / "vocab.txt").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(PizaError, match=message):
        Tokenizer.from_directory(tmp_path)


def test_absent_or_broken_files_are_errors(tmp_path):
    with pytest.raises(PizaError, match="neither"):
        Tokenizer.from_directory(tmp_path)
    with pytest.raises(PizaError, match="no tokenizer file"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(PizaError, match=r"not a tokenizer\.json"):
        Tokenizer.from_directory(tmp_path)


def test_longest_real_expression_needs_a_known_number_of_tokens(shared_dir):
    texts = [r["ref"] for r in json.loads((shared_dir / "sorec" / "val.json").read_text(encoding="utf-8"))]
    tokenizer = Tokenizer.train(texts, 2000)
    longest = max(texts, key=lambda text: len(tokenizer.tokens(text)))
    count = len(tokenizer.tokens(longest))
    assert tokenizer.encode(longest, count)[1].all()
    with pytest.raises(PizaError, match=f"has {count} tokens"):
        tokenizer.encode(longest, count - 1)
