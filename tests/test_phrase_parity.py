"""Photos and phrases to boxes and labels: the whole way, against transformers' processor and detector."""

import numpy as np
import pytest

from piza_jax import Grounder
from piza_jax.convert.load import load_source
from piza_jax.data.preprocess import FILE, Preprocessing
from piza_jax.data.tokenizer_files import find_tokenizer
from piza_jax.piza.zoom import ZoomConfig
from tests import figures, torch_models
from tests.bert_vocabulary import write_vocabulary

pytestmark = pytest.mark.slow

TEXT = "a cat. the dog's remote control. a half-open door in the street? a traffic light."
LABELS = ["A cat", " a Remote control ", "the traffic light", "dog"]
# Two that are larger and one that is smaller than their common view, a portrait, and a strip of 1 : 6.
SIZES = [(240, 320), (400, 300), (75, 100), (60, 360), (300, 400)]
SMALL = Preprocessing(shortest_edge=160, longest_edge=266)


def draw(seed: int, height: int, width: int) -> np.ndarray:
    """Smooth coloured blobs, so that a resize keeps what there is to see."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    photo = np.full((height, width, 3), 90.0)
    for _ in range(12):
        centre, radius, colour = rng.uniform(0, [height, width]), rng.uniform(8, 50), rng.uniform(-90, 150, 3)
        photo += np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / radius**2)[..., None] * colour
    return np.clip(photo, 0, 255).astype(np.uint8)


PHOTOS = [draw(seed, *size) for seed, size in enumerate(SIZES)]


class Theirs:
    """transformers' whole path on single photos."""

    def __init__(self, folder, model):
        import transformers
        from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
            GroundingDinoImageProcessorPil,
        )

        tokenizer = transformers.BertTokenizer.from_pretrained(folder)
        images = GroundingDinoImageProcessorPil.from_pretrained(folder)
        self.model, self.processor = model, transformers.GroundingDinoProcessor(images, tokenizer)

    def outputs(self, photo, text):
        import torch

        inputs = self.processor(images=photo, text=text, return_tensors="pt", input_data_format="channels_last")
        with torch.no_grad():
            return inputs, self.model(**inputs)

    def detect(self, photo, text, box_threshold, text_threshold):
        inputs, outputs = self.outputs(photo, text)
        return self.processor.post_process_grounded_object_detection(
            outputs, inputs.input_ids, box_threshold, text_threshold, target_sizes=[photo.shape[:2]]
        )[0]

    def tokens(self, photo, text):
        """Scores of tokens [Q, L]."""
        return self.outputs(photo, text)[1].logits[0].sigmoid().numpy()


def gap(values: np.ndarray, low: float, high: float) -> float:
    """The middle of the widest gap between values in a range of their quantiles; at least 1e-3 from each of them."""
    values = np.sort(values)[int(low * len(values)) : int(high * len(values))]
    place = int(np.argmax(np.diff(values)))
    assert values[place + 1] - values[place] > 2e-3
    return float(values[place] + values[place + 1]) / 2


def thresholds(tokens: list[np.ndarray]) -> tuple[float, float]:
    """Box and text threshold that keep some boxes and some tokens, none of them near a threshold."""
    scores = np.concatenate([one.max(axis=1) for one in tokens])
    box = gap(scores, 0.2, 0.6)
    within = np.concatenate([one[one.max(axis=1) > box].ravel() for one in tokens])
    text = gap(within[within > 0], 0.4, 0.9)
    assert np.abs(scores - box).min() > 1e-3
    assert np.abs(within - text).min() > 1e-3
    return box, text


def assert_same(ours, expected, name):
    figures.note(f"{name}: scores against transformers", np.abs(ours.scores - expected["scores"].numpy()).max())
    figures.note(f"{name}: boxes against transformers, pixels", np.abs(ours.boxes - expected["boxes"].numpy()).max())
    assert list(ours.labels) == expected["text_labels"]
    np.testing.assert_allclose(ours.scores, expected["scores"].numpy(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(ours.boxes, expected["boxes"].numpy(), rtol=0, atol=0.01)


def make_detector(folder, mm=False):
    """A random detector of transformers, saved in a folder; its tokenizer has fewer than 3000 tokens."""
    sizes = {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    swin = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 7}
    bert = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    bert["vocab_size"] = 3000
    model = torch_models.build("mm-grounding-dino" if mm else "grounding-dino", swin, bert, **sizes)
    model.model.decoder.layer_norm.weight.data *= 1.0 if mm else 0.35  # scores that are not all near 1
    torch_models.save(model, folder)
    return model


def setting(folder, mm):
    write_vocabulary(folder)
    SMALL.save(folder)
    theirs = Theirs(folder, make_detector(folder, mm))
    model, tokenizer = load_source(folder).model, find_tokenizer(folder)
    assert tokenizer.vocab_size < 3000
    return theirs, Grounder(model, tokenizer, preprocessing=Preprocessing.from_file(folder / FILE), single_pass=True)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return setting(tmp_path_factory.mktemp("grounding_dino"), mm=False)


@pytest.fixture(scope="module")
def limits(both):
    return thresholds([both[0].tokens(photo, TEXT) for photo in PHOTOS])


@pytest.fixture(scope="module")
def batch(both, limits):
    return both[1].detect(PHOTOS, TEXT, box_threshold=limits[0], text_threshold=limits[1])


def test_boxes_scores_and_labels_of_a_batch_are_those_of_single_photos_there(both, limits, batch):
    for ours, photo in zip(batch, PHOTOS, strict=True):
        assert_same(ours, both[0].detect(photo, TEXT, *limits), "phrases")
    labels = [label for ours in batch for label in ours.labels]
    assert min(len(ours) for ours in batch) >= 3
    assert sum(len(ours) for ours in batch) < 0.8 * 30 * len(PHOTOS)
    assert len({len(label.split()) for label in labels}) >= 3
    assert any("'" in label for label in labels)


def test_a_photo_alone_has_the_boxes_that_it_has_in_a_batch(both, limits, batch):
    alone = both[1].detect(PHOTOS[0], TEXT, box_threshold=limits[0], text_threshold=limits[1])
    np.testing.assert_allclose(alone.boxes, batch[0].boxes, rtol=0, atol=1e-3)
    np.testing.assert_allclose(alone.scores, batch[0].scores, rtol=0, atol=1e-5)
    assert alone.labels == batch[0].labels


def test_lists_of_labels_are_merged_as_there(both):
    photo = PHOTOS[0]
    limits = thresholds([both[0].tokens(photo, LABELS)])
    ours = both[1].detect(photo, LABELS, box_threshold=limits[0], text_threshold=limits[1])
    assert ours.text == "a cat. a remote control. the traffic light. dog."
    assert_same(ours, both[0].detect(photo, LABELS, *limits), "labels")


def test_a_whole_sentence_gets_the_best_box(both):
    expression = "The dog's remote control in the street."
    scores = both[0].tokens(PHOTOS[0], expression).max(axis=1)
    best = both[0].detect(PHOTOS[0], expression, float(np.sort(scores)[-2]), 0.5)
    found = both[1].ground(PHOTOS[0], expression)
    assert len(found.steps) == len(best["scores"]) == 1
    assert found.score == pytest.approx(best["scores"].item(), abs=1e-4)
    corners = best["boxes"][0].numpy().reshape(2, 2)
    np.testing.assert_allclose(found.box, np.clip(corners, 0, [320, 240]).ravel(), rtol=0, atol=0.01)


def test_the_training_free_zoom_starts_from_the_single_pass(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    write_vocabulary(tmp_path)
    make_detector(tmp_path)
    model, tokenizer = load_source(tmp_path).model, find_tokenizer(tmp_path)
    photo = draw(9, 160, 160)  # neither way resizes it
    single = Grounder(model, tokenizer, None, 32, preprocessing=SMALL, single_pass=True)
    zoom = ZoomConfig(mode="training_free", canvas_hw=(160, 160), max_steps=2)
    found = Grounder(model, tokenizer, zoom, 32).ground(photo, "The dog's remote control.")
    assert found.steps[0].crop == (0, 0, 160, 160)
    assert 1 <= len(found.steps) <= 2
    expected = single.ground(photo, "The dog's remote control.")
    np.testing.assert_allclose(found.steps[0].box, expected.box, rtol=0, atol=0.01)
    assert found.steps[0].score == pytest.approx(expected.score, abs=1e-5)


def test_mm_grounding_dino(tmp_path):
    theirs, grounder = setting(tmp_path, mm=True)
    limits = thresholds([theirs.tokens(PHOTOS[1], TEXT)])
    ours = grounder.detect(PHOTOS[1], TEXT, box_threshold=limits[0], text_threshold=limits[1])
    assert len(ours) >= 3
    assert_same(ours, theirs.detect(PHOTOS[1], TEXT, *limits), "phrases, MM")
