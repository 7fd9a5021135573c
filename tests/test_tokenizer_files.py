"""Tokenizers of checkpoints: found where they lie, and with the ids and texts of transformers' BertTokenizer."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from piza_jax import PizaError
from piza_jax.data.tokenize import Tokenizer, with_full_stop
from piza_jax.data.tokenizer_files import find_tokenizer
from tests.bert_vocabulary import CAPTIONS, write_vocabulary

HARD = [
    "",
    "ÀÉÎõü İstanbul ﬁre ΟΔΟΣ",
    "中国的车 and 日本語 한국어 ไทย",
    "don't, can't; the dog's bowl & café's",
    "x" * 100 + " " + "y" * 101 + " z" * 30,
    "tab\tnew\nline\r\u00a0nbsp\u200bzero\u3000wide",
    "\x00control\x07 \ufffd \u202eright\u202c",
    "emoji 🚗🚦 and 𝒎𝒂𝒕𝒉",
    "(a) [b] {c} <d> 50% $5 #7 @me *star* _under_ `tick` ~tilde^ | \\ / = +",
    "\u201cquotes\u201d \u2018single\u2019 \u2014 dash \u2013 en\u2026 ellipsis",
    "1,234.5 km/h... Really?! Yes.",
    "A cat. A REMOTE control. ",
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    write_vocabulary(folder)
    return folder


def theirs(folder):
    return pytest.importorskip("transformers").BertTokenizer.from_pretrained(folder)


def assert_same(ours: Tokenizer, other, texts):
    for text in texts:
        caption = with_full_stop(text)
        assert ours._encode("a " + text).ids == other("a " + caption)["input_ids"], text


@pytest.fixture(scope="module")
def pair(checkpoint):
    return find_tokenizer(checkpoint), theirs(checkpoint)


def test_ids_are_those_of_transformers(pair):
    ours, other = pair
    assert ours.delimiter_ids == (101, 102, 1012, 1029)
    assert ours.tokens("A REMOTE control")[1:-2] == ["a", "remote", "control"]
    assert not any("[UNK]" in ours.tokens(text) for text in CAPTIONS)
    assert_same(ours, other, [*CAPTIONS, *HARD])


def test_real_expressions_have_the_ids_of_transformers(shared_dir, tmp_path):
    texts = [one["ref"] for one in json.loads((shared_dir / "sorec" / "val.json").read_text(encoding="utf-8"))][:3000]
    write_vocabulary(tmp_path, texts)
    ours = find_tokenizer(tmp_path)
    assert_same(ours, theirs(tmp_path), texts)
    assert not any("[UNK]" in ours.tokens(text) for text in texts)


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.one_of(st.sampled_from("abcdeRSTü.,?'-# "), st.characters(codec="utf-8")), max_size=60))
def test_any_text_has_the_ids_of_transformers(pair, text):
    # Typed by a user these are ordinary text here, and no longer so in transformers.
    assume(not any(word in text for word in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")))
    assert_same(*pair, [text])


@pytest.mark.parametrize(
    "rules",
    [
        {"do_lower_case": False},
        {"do_lower_case": True, "strip_accents": False},
        {"do_lower_case": False, "strip_accents": True},
        {"tokenize_chinese_chars": False},
    ],
    ids=lambda rules: " ".join(f"{key}={value}" for key, value in rules.items()),
)
@pytest.mark.parametrize("form", ["vocab.txt", "tokenizer.json"])
def test_rules_of_tokenizer_config_are_kept(tmp_path, rules, form):
    write_vocabulary(tmp_path, [text for text in HARD if text])
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **rules}))
    plain = Tokenizer.from_directory(tmp_path)
    if form == "tokenizer.json":
        Tokenizer.from_directory(tmp_path).save(tmp_path / "saved")
        content = json.loads((tmp_path / "saved").read_text(encoding="utf-8"))
        content["normalizer"] |= {"lowercase": True, "strip_accents": None, "handle_chinese_chars": True}
        (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
        (tmp_path / "vocab.txt").unlink()
    ours = Tokenizer.from_directory(tmp_path)
    other = theirs(tmp_path)
    assert_same(ours, other, HARD)
    (tmp_path / "tokenizer_config.json").unlink()
    default = Tokenizer.from_directory(tmp_path)
    assert any(default.tokens("a " + text) != ours.tokens("a " + text) for text in HARD), "the rule changes nothing"
    assert all(plain.tokens("a " + text) == ours.tokens("a " + text) for text in HARD)


@pytest.mark.parametrize("clean", [False, True])
def test_decoding_is_that_of_transformers(tmp_path, clean):
    write_vocabulary(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"clean_up_tokenization_spaces": clean}))
    ours, other = find_tokenizer(tmp_path), theirs(tmp_path)
    rng = np.random.default_rng(0)
    picked = [other("a " + text)["input_ids"] for text in (*CAPTIONS, *HARD)]
    picked += [[ids[i] for i in np.flatnonzero(rng.random(len(ids)) < 0.5)] for ids in picked for _ in range(20)]
    texts = [ours.decode(ids) for ids in picked]
    assert texts == other.batch_decode(picked)
    assert any("[SEP]" in text for text in texts)
    assert any(text.startswith("##") for text in texts)
    assert any(" ' " in text for text in texts) != clean
    assert [Tokenizer.from_directory(tmp_path).decode(ids) for ids in picked] == texts


def test_the_checkpoints_own_files_come_first(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    shutil.copytree(checkpoint, tmp_path / "models--bert-base-uncased" / "snapshots" / "abc")
    own = tmp_path / "own"
    own.mkdir()
    Tokenizer.train(["one two"], 40).save(own / "tokenizer.json")
    assert find_tokenizer(own).vocab_size < 100
    assert find_tokenizer(own, checkpoint).vocab_size > 1000
    assert find_tokenizer(own, checkpoint / "vocab.txt").vocab_size > 1000
    assert find_tokenizer(checkpoint, own / "tokenizer.json").vocab_size < 100


@pytest.mark.parametrize("name", ["bert-base-uncased", "google-bert--bert-base-uncased"])
@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"])
def test_bert_base_uncased_is_found_in_the_cache(checkpoint, tmp_path, monkeypatch, name, variable):
    for other in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    place = {
        "HF_HUB_CACHE": "",
        "HF_HOME": "hub",
        "XDG_CACHE_HOME": "huggingface/hub",
        "HOME": ".cache/huggingface/hub",
    }
    repository = tmp_path / place[variable] / f"models--{name}"
    old = repository / "snapshots" / "aaa"
    old.mkdir(parents=True)
    Tokenizer.train(["one two"], 40).save(old / "tokenizer.json")
    shutil.copytree(checkpoint, repository / "snapshots" / "bbb")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("bbb\n")
    bare = tmp_path / "bare"
    bare.mkdir()
    assert find_tokenizer(bare).vocab_size > 1000


def test_nothing_found_names_the_files_the_places_and_the_cure(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(PizaError) as error:
        find_tokenizer(tmp_path)
    for part in (
        "tokenizer.json and vocab.txt",
        str(tmp_path),
        "cache/models--bert-base-uncased/snapshots",
        "give the",
    ):
        assert part in str(error.value)
    with pytest.raises(PizaError, match="elsewhere holds neither"):
        find_tokenizer(tmp_path, tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"unk_token": "<unk>"}', "unk_token is '<unk>'"),
        ('{"sep_token": {"content": "</s>"}}', "sep_token is '</s>'"),
        ("[]", "not the configuration"),
        ("{", "cannot read"),
    ],
)
def test_unfit_tokenizer_configs_are_named(checkpoint, tmp_path, content, message):
    shutil.copy(checkpoint / "vocab.txt", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(PizaError, match=rf"tokenizer_config\.json.*{message}|{message}.*tokenizer_config\.json"):
        find_tokenizer(tmp_path)
