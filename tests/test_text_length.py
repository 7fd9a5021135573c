"""Sentences are padded to one of a few lengths, which only grows and changes no box."""

import numpy as np
import pytest

from piza_jax.data.pairs import TEXT_LENGTHS, text_length
from piza_jax.piza.grounding import Grounder
from piza_jax.piza.zoom_config import ZoomConfig
from tests import compilations
from tests.fake_detector import COLOURS, PatchDetector, draw_patches, make_tokenizer


class Reader(PatchDetector):
    """Keeps the lengths of the texts that it is compiled for."""

    lengths = ()

    def encode_text(self, input_ids, token_mask):
        Reader.lengths += (input_ids.shape[1],)
        return super().encode_text(input_ids, token_mask)


def test_lengths_are_the_least_that_fit_and_never_above_the_limit():
    assert [text_length(tokens, 256) for tokens in (1, 64, 65, 128, 129, 256)] == [64, 64, 128, 128, 256, 256]
    assert [text_length(tokens, 100) for tokens in (1, 64, 65, 100)] == [64, 64, 100, 100]
    assert text_length(5, 8) == 8
    assert text_length(300, 512) == 512
    assert list(TEXT_LENGTHS) == sorted(TEXT_LENGTHS)


@pytest.mark.parametrize("single_pass", [False, True])
def test_the_length_grows_with_the_longest_sentence_and_is_kept(monkeypatch, single_pass):
    monkeypatch.setattr(Reader, "lengths", ())
    tokenizer = make_tokenizer()
    ids = tuple(int(tokenizer.encode(colour, 8)[0][1]) for colour in COLOURS)
    grounder = Grounder(
        Reader(ids, margin=0.0),
        tokenizer,
        ZoomConfig(canvas_hw=(96, 96), min_crop_px=16.0),
        max_tokens=256,
        batch_size=1,
        single_pass=single_pass,
    )
    photo, boxes = draw_patches(0, 300, 200)
    short, long = "red patch here", "red patch here " * 30
    first = grounder.ground(photo, short)
    assert set(Reader.lengths) == {64}
    again = grounder.ground(photo, long)
    assert set(Reader.lengths) == {64, 128}
    assert compilations.during(lambda: grounder.ground(photo, short)) == 0
    assert set(Reader.lengths) == {64, 128}
    np.testing.assert_allclose(first.box, boxes["red"], atol=4)
    np.testing.assert_allclose(again.box, first.box, atol=1e-3)
