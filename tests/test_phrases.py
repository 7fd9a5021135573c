"""Phrase mode without a detector: texts, thresholds, labels and the picture, against transformers' processor."""

from types import SimpleNamespace

import numpy as np
import pytest

from piza_jax import PhraseDetections, PizaError
from piza_jax.data.tokenizer_files import find_tokenizer
from piza_jax.draw import FOUND
from piza_jax.draw_boxes import with_boxes
from piza_jax.piza.phrases import check_thresholds, merge_labels, select, texts_of
from piza_jax.piza.single_pass import Look
from tests.bert_vocabulary import CAPTIONS, write_vocabulary

QUERIES, LENGTH, HW = 60, 256, (300, 500)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    write_vocabulary(folder)
    return folder


@pytest.fixture(scope="module")
def processor(folder):
    transformers = pytest.importorskip("transformers")
    module = pytest.importorskip("transformers.models.grounding_dino.image_processing_pil_grounding_dino")
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)
    return transformers.GroundingDinoProcessor(module.GroundingDinoImageProcessorPil(), tokenizer)


def random_look(seed: int, count: int) -> Look:
    """Logits over 0..1 and beyond, -inf on padding; some tokens, [CLS] and [SEP] among them, score high."""
    rng = np.random.default_rng(seed)
    logits = np.full((QUERIES, LENGTH), -np.inf, np.float32)
    logits[:, :count] = rng.normal(-3, 2.5, (QUERIES, count))
    boxes = rng.uniform(0.05, 0.6, (QUERIES, 4)).astype(np.float32)
    return Look(logits, boxes, boxes[0], logits[0, 0])


@pytest.mark.parametrize("seed", range(8))
def test_selection_is_that_of_the_processor(folder, processor, seed):
    import torch

    tokenizer = find_tokenizer(folder)
    # The last one fills all columns, so that [SEP] lies in the column that no label reads.
    text = [*CAPTIONS, "a cat. " * 84 + "dog."][seed % 5]
    input_ids, token_mask = tokenizer.encode(text, LENGTH)
    look = random_look(seed, int(token_mask.sum()))
    limits = (0.25, 0.25) if seed < 5 else (0.1, 0.6)
    ours = select(look, HW, text, input_ids, tokenizer.decode, *limits)
    outputs = SimpleNamespace(logits=torch.tensor(look.logits[None]), pred_boxes=torch.tensor(look.boxes[None]))
    expected = processor.post_process_grounded_object_detection(
        outputs, torch.tensor(input_ids[None]), *limits, target_sizes=[HW]
    )[0]
    assert list(ours.labels) == expected["text_labels"]
    assert 3 < len(ours) <= QUERIES
    assert len(set(ours.labels)) > 3
    np.testing.assert_allclose(ours.scores, expected["scores"].numpy(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours.boxes, expected["boxes"].numpy(), rtol=0, atol=1e-4)
    assert any("[SEP]" in label for label in ours.labels) == (token_mask.sum() < LENGTH)
    assert not any("[CLS]" in label for label in ours.labels)


def test_a_box_may_have_no_words():
    look = random_look(0, 20)
    found = select(look, HW, "", np.arange(LENGTH), str, 0.1, 1.0)
    assert len(found) > 10
    assert set(found.labels) == {"[]"}


def test_the_best_are_kept_in_the_order_of_the_queries():
    look = random_look(1, 20)
    every = select(look, HW, "", np.arange(LENGTH), str, 0.3, 0.3)
    best = select(look, HW, "", np.arange(LENGTH), str, 0.3, 0.3, max_detections=5)
    kept = np.isin(every.scores, np.sort(every.scores)[-5:])
    assert len(best) == 5 < len(every)
    np.testing.assert_array_equal(best.scores, every.scores[kept])
    np.testing.assert_array_equal(best.boxes, every.boxes[kept])
    assert len(select(look, HW, "", np.arange(LENGTH), str, 0.3, 0.3, max_detections=QUERIES)) == len(every)


@pytest.mark.parametrize(
    "labels", [["A cat", " a Remote control "], ["dog"], ["What?", "ΟΔΟΣ", "İ"], ["two words", "Üben!"]]
)
def test_labels_are_merged_as_by_the_processor(processor, labels):
    expected = processor._preprocess_input_text(labels)
    assert merge_labels(labels) == expected
    assert texts_of(labels) == [expected]
    assert texts_of([labels, ["x"]]) == processor._preprocess_input_text([labels, ["x"]])
    assert texts_of(tuple(labels)) == [expected]


@pytest.mark.parametrize("text", ["a cat. a remote control.", "a cat.", "A Cat. DOG?.", "wait..."])
def test_texts_that_end_with_a_full_stop_stay(processor, text):
    assert texts_of(text) == [processor._preprocess_input_text(text)]
    assert texts_of([text, "b."]) == processor._preprocess_input_text([text, "b."])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", ["a cat."]),
        ("a cat. a dog  ", ["a cat. a dog."]),
        ("a cat?", ["a cat?."]),
        (["a cat.", "a dog"], ["a cat.", "a dog."]),
        ([["a cat"], "a dog. a mouse"], ["a cat.", "a dog. a mouse."]),
    ],
)
def test_a_full_stop_is_added_where_the_processor_leaves_the_end_open(processor, text, expected):
    assert texts_of(text) == expected
    assert processor._preprocess_input_text(text) == text


@pytest.mark.parametrize("text", [[], ["a cat", " "], [["a cat"], [""]]])
def test_empty_labels_are_errors(text):
    with pytest.raises(PizaError, match=r"empty|there is no text"):
        texts_of(text)


@pytest.mark.parametrize(
    ("limits", "name"),
    [((-0.1, 0.2, None), "box_threshold"), ((0.1, 1.2, None), "text_threshold"), ((0.1, 0.2, 0), "max_detections")],
)
def test_thresholds_out_of_range_are_named(limits, name):
    with pytest.raises(PizaError, match=name):
        check_thresholds(*limits)


def test_results_become_json():
    found = PhraseDetections("a.", np.array([[1, 2, 3, 4]], np.float32), np.array([0.5], np.float32), ("a",))
    expected = {"text": "a.", "detections": [{"label": "a", "score": 0.5, "box": [1.0, 2.0, 3.0, 4.0]}]}
    assert found.to_dict() == expected


def test_boxes_are_drawn_with_their_labels():
    photo = np.full((300, 400, 3), 128, np.uint8)
    boxes = np.array([[100, 120, 180, 200], [-20, -10, 60, 40], [390, 290, 420, 330]], np.float32)
    found = PhraseDetections("x.", boxes, np.array([0.9, 0.4, 0.5], np.float32), ("a café", "b", ""))
    picture = with_boxes(photo, found)
    assert picture.size == (400, 300)
    assert (photo == 128).all()
    pixels = np.asarray(picture)
    coloured = (np.abs(pixels.astype(int) - FOUND).max(axis=2) < 40).astype(int)
    assert coloured[118:203, 98:102].sum() > 80  # left edge of the first box
    assert coloured[118:203, 178:182].sum() > 80
    assert coloured[100:117, 100:140].sum() > 150  # its label, above it
    assert coloured[2:22, 0:30].sum() > 100  # the second one's has no room there
    assert not coloured[130:190, 110:170].any()
    assert not coloured[220:, :300].any()
    nothing = PhraseDetections("x.", boxes[:0], np.zeros(0, np.float32), ())
    np.testing.assert_array_equal(np.asarray(with_boxes(photo, nothing)), photo)
