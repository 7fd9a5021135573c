"""Sub-sentence masks and positions: those of transformers, and by the rule in words."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piza_jax.data.tokenize import Tokenizer
from piza_jax.models.text import text_inputs
from tests.bert_vocabulary import write_vocabulary

CLS, SEP, STOP, QUESTION = DELIMITERS = (101, 102, 1012, 1029)
LONGEST = 256

LENGTHS = (4, 5, 12, 40, LONGEST)  # few, as each is compiled
# Words and inner delimiters, some of them in a row.
TOKEN = st.sampled_from([1037, 2482, 3899, 100, 1037, 2482, STOP, QUESTION])


@st.composite
def token_ids(draw):
    """Two captions [2, L] that end with a full stop; the first fills its row or not, the second is of any length."""
    length = draw(st.sampled_from(LENGTHS))
    first = length - 3 if draw(st.booleans()) else draw(st.integers(0, length - 3))
    counts = first, draw(st.integers(0, length - 3))
    rows = [[CLS, *draw(st.lists(TOKEN, min_size=count, max_size=count)), STOP, SEP] for count in counts]
    return np.array([row + [0] * (length - len(row)) for row in rows])


@pytest.fixture(scope="module")
def theirs():
    pytest.importorskip("torch")
    module = pytest.importorskip("transformers.models.grounding_dino.modeling_grounding_dino")
    return module.generate_masks_with_special_tokens_and_transfer_map


def both(theirs, input_ids):
    import torch

    mask, positions = theirs(torch.tensor(input_ids), special_tokens=torch.tensor(DELIMITERS))
    ours = jax.jit(text_inputs, static_argnums=2)(input_ids, input_ids > 0, DELIMITERS)
    return (np.asarray(ours.self_mask), np.asarray(ours.position_ids)), (mask.numpy(), positions.numpy())


@settings(max_examples=200, deadline=None)
@given(input_ids=token_ids())
def test_masks_and_positions_are_those_of_transformers(theirs, input_ids):
    (mask, positions), (expected_mask, expected_positions) = both(theirs, input_ids)
    np.testing.assert_array_equal(mask, expected_mask)
    np.testing.assert_array_equal(positions, expected_positions)


def test_blocks_in_words(theirs):
    ids = np.array([[CLS, 1037, 2482, STOP, 3899, QUESTION, STOP, SEP, 0, 0]])
    (mask, positions), _ = both(theirs, ids)
    blocks = [0, 1, 1, 1, 2, 2, 3, 4, 5, 6]  # a delimiter closes its block; each padding token is alone
    np.testing.assert_array_equal(mask[0], np.equal.outer(blocks, blocks))
    np.testing.assert_array_equal(positions[0], [0, 0, 1, 2, 0, 1, 0, 0, 0, 0])


def test_the_one_difference_needs_a_caption_without_a_full_stop(theirs, tmp_path):
    """Where [SEP] is the last column, transformers leaves an open last phrase without a block; ours is never open."""
    ids = np.array([[CLS, 1037, STOP, 2482, 3899, SEP]])
    (mask, positions), (expected_mask, expected_positions) = both(theirs, ids)
    assert mask[0, 3, 4]
    assert not expected_mask[0, 3, 4]
    assert positions[0].tolist() == [0, 0, 1, 0, 1, 2]
    assert expected_positions[0].tolist() == [0, 0, 1, 0, 0, 0]
    tokenizer = Tokenizer.from_directory(write_vocabulary(tmp_path).parent)
    for text in ("a cat. a dog", "a tram and dog?", "a white tram or dog", "a cat. a dog ", "A DOG IN A TRAM\n"):
        for length in (len(tokenizer.tokens(text)), 40):
            input_ids, _ = tokenizer.encode(text, length)
            (mask, positions), (expected_mask, expected_positions) = both(theirs, input_ids[None])
            np.testing.assert_array_equal(mask, expected_mask)
            np.testing.assert_array_equal(positions, expected_positions)
