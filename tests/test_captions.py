"""Captions of several phrases: which tokens name which box, and what is said of drawn pictures."""

import re

import numpy as np
import pytest

from piza_jax import PizaError
from piza_jax.data.blind import BlindSource
from piza_jax.data.captions import CaptionConfig, Mention, Phrase, random_caption
from piza_jax.data.decode import decode_rgb
from piza_jax.data.mini_source import MiniPictures
from piza_jax.data.pipeline import train_batches
from piza_jax.data.tokenize import Tokenizer
from piza_jax.data.views import view_to_photo
from piza_jax.data.world.kinds import BUILDINGS, MOUNTED_KINDS, VEHICLES
from piza_jax.data.world.phrases import phrases_of
from piza_jax.data.world.pictures import make_picture
from piza_jax.data.world.render import place
from piza_jax.data.world.splits import find_split
from tests.mini_checker import COLOURS, KINDS
from tests.small_source import TEXTS, SmallSource, record

CONFIG = CaptionConfig(canvas_hw=(60, 80), max_tokens=40, max_boxes=6, max_phrases=4)
RED, GREEN, ALL = (10.0, 20.0, 60.0, 80.0), (200.0, 100.0, 300.0, 200.0), (0.0, 0.0, 400.0, 300.0)
PHRASES = (
    Phrase("red car", (RED,)),
    Phrase("the green car on the dark road.", (GREEN,)),
    Phrase("car", (RED, GREEN)),
    Phrase("purple car", ()),
)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, 120)


def captions(tokenizer, config=CONFIG, phrases=PHRASES, count=40):
    row = {**record(0), "phrases": phrases}
    return [random_caption(row, tokenizer, config, np.random.default_rng(seed)) for seed in range(count)]


def named(tokenizer, sample) -> dict[tuple, set[str]]:
    """Box in photo pixels -> the phrases whose tokens are its own."""
    words = tokenizer.decode(sample["input_ids"][sample["token_mask"]]).removeprefix("[CLS] ").removesuffix(". [SEP]")
    pieces = [tokenizer.decode(tokenizer.encode(text, 40)[0][1:-1]) for text in words.split(". ")]
    assert all(pieces)
    found = {}
    for row in np.flatnonzero(sample["target_valid"]):
        box = tuple(view_to_photo(sample["target_boxes"][row], np.array(ALL)).round().tolist())
        own = np.where(sample["positive"][row], sample["input_ids"], 0)
        runs = np.split(np.arange(len(own)), np.flatnonzero(np.diff((own != 0).astype(int))) + 1)
        found[box] = {tokenizer.decode(own[run]) for run in runs if own[run].all()}
    return found


def test_every_box_has_the_tokens_of_all_phrases_that_are_true_of_it(tokenizer):
    seen = set()
    for sample in captions(tokenizer):
        text = tokenizer.decode(sample["input_ids"][sample["token_mask"]])
        said = [phrase for phrase in PHRASES if re.search(rf"[].] {phrase.text.strip('.')}[.]", text)]
        wanted = {}
        for phrase in said:
            for box in phrase.boxes_xyxy:
                wanted.setdefault(box, set()).add(phrase.text.strip("."))
        assert named(tokenizer, sample) == wanted
        assert wanted
        assert not sample["positive"][~sample["target_valid"]].any()
        seen.add(len(said))
    assert seen == {1, 2, 3, 4}


def test_captions_are_cut_between_phrases_and_never_inside_one(tokenizer):
    small = CaptionConfig(canvas_hw=(60, 80), max_tokens=12, max_boxes=2, max_phrases=4)
    for sample in captions(tokenizer, small):
        text = tokenizer.decode(sample["input_ids"][sample["token_mask"]])
        assert text.endswith(". [SEP]")
        assert sample["target_valid"].sum() in (1, 2)
        assert sample["input_ids"].shape == (12,)


def test_what_cannot_be_a_caption_names_its_picture(tokenizer):
    with pytest.raises(PizaError, match=r"record 100 \(0.png\): no phrase with a box fits 6 boxes"):
        captions(tokenizer, phrases=PHRASES[3:], count=1)
    with pytest.raises(PizaError, match="max_phrases is 0"):
        CaptionConfig(max_phrases=0)


def seen_part(box, window) -> float:
    """How much of a thing is in a window."""
    sides = [max(min(box[axis + 2], window[axis + 2]) - max(box[axis], window[axis]), 0) for axis in (0, 1)]
    return sides[0] * sides[1] / ((box[2] - box[0]) * (box[3] - box[1]))


def test_names_speak_of_all_that_is_seen_of_their_kind_and_colour():
    split = find_split("train", True)
    checked = {"there": 0, "absent": 0}
    for number in range(60):
        picture = make_picture(split, number)
        windowed = picture.size == (640, 480)
        things = [thing for thing in picture.scene.things if thing.large or windowed]
        for phrase in phrases_of(picture, np.random.default_rng(number)):
            words = phrase.text.split(" ", 1)
            if len(words) != 2 or words[0] not in COLOURS or words[1] not in KINDS:
                continue  # a sentence, or a name with a detail
            alike = [thing for thing in things if (thing.kind, thing.colour) == (KINDS[words[1]], words[0])]
            assert len(phrase.boxes_xyxy) == sum(seen_part(thing.box, picture.window) > 0.05 for thing in alike)
            checked["there" if phrase.boxes_xyxy else "absent"] += 1
    assert min(checked.values()) > 100


def test_groups_hold_all_that_is_seen_of_a_colour_or_pattern():
    split = find_split("train", True)
    checked = set()
    for number in range(60):
        picture = make_picture(split, number)
        windowed = picture.size == (640, 480)
        for phrase in phrases_of(picture, np.random.default_rng(number)):
            look, _, group = phrase.text.partition(" ")
            kinds = {"vehicle": VEHICLES, "building": BUILDINGS}.get(group, ())
            if group not in ("vehicle", "building", "thing"):
                continue
            assert group != "thing" or windowed
            seen = [thing for thing in picture.scene.things if seen_part(thing.box, picture.window) > 0.05]
            alike = [thing for thing in seen if look in (thing.colour, thing.detail)]
            wanted = [thing for thing in alike if thing.kind in kinds or (group == "thing" and thing.kind != "pole")]
            assert len(phrase.boxes_xyxy) == len(wanted)
            checked.add((look in COLOURS, group))
    assert checked == {(True, "vehicle"), (True, "building"), (True, "thing"), (False, "thing")}


def spoken(thing):
    """A thing's kind and colour in the words of a sentence."""
    return (thing.kind, thing.colour)


def heard(words):
    """Kind and colour that a description names."""
    colour = next(word for word in words.split() if word in COLOURS)
    kind = next(kind for name, kind in KINDS.items() if re.search(rf"\b{name}\b", words))
    return kind, colour


def test_sentences_about_neighbours_name_all_that_have_one_and_no_other():
    split = find_split("train", True)
    checked = set()
    for number in range(40):
        picture = make_picture(split, number)
        things = [thing for thing in picture.scene.things if not thing.large]
        for phrase in phrases_of(picture, np.random.default_rng(number)):
            pattern = r"The ([^,]+) (?:directly|just to the|just) (left|right|above|below)(?: of)? an? (.+)\."
            said = re.fullmatch(pattern, phrase.text)
            if said is None or re.search(r"\b(the|that|and)\b", said[1] + said[3]):
                continue
            target, side, other = heard(said[1]), said[2], heard(said[3])
            axis, sign = (0 if side in ("left", "right") else 1), (1 if side in ("left", "above") else -1)
            wanted = 0
            for one in things:
                near = [
                    two
                    for two in things
                    if two is not one
                    and spoken(two) == other
                    and 0 < sign * (two.centre[axis] - one.centre[axis]) < 160
                    and abs(two.centre[1 - axis] - one.centre[1 - axis]) < 45
                ]
                wanted += spoken(one) == target and bool(near) and seen_part(one.box, picture.window) > 0.05
            assert len(phrase.boxes_xyxy) <= wanted
            checked.add(side)
    assert checked == {"left", "right", "above", "below"}


def test_sentences_about_a_region_hold_all_things_there():
    split = find_split("train", True)
    sizes = []
    for number in range(80):
        picture = make_picture(split, number)
        for phrase in phrases_of(picture, np.random.default_rng(number)):
            said = re.fullmatch(r"All the things (?:to the |on the )?(left|right)(?: side)? of the (.+)\.", phrase.text)
            if said is None:
                continue
            large = [thing for thing in picture.scene.things if thing.large and thing.colour]
            (anchor,) = [thing for thing in large if spoken(thing) == heard(said[2])]
            for thing in picture.scene.things:
                gap = anchor.box[0] - thing.box[2] if said[1] == "left" else thing.box[0] - anchor.box[2]
                level = abs(thing.box[3] - anchor.box[3])
                if thing.large or not 20 <= gap <= 250 or level > 50 or seen_part(thing.box, picture.window) < 0.5:
                    continue
                if thing.kind in MOUNTED_KINDS:
                    continue
                x0, y0, x1, y1 = place(thing.box, picture.window, picture.size)
                middle = (x0 + x1) / 2, (y0 + y1) / 2
                assert any(b[0] <= middle[0] <= b[2] and b[1] <= middle[1] <= b[3] for b in phrase.boxes_xyxy), phrase
            sizes.append(len(phrase.boxes_xyxy))
    assert len(sizes) > 10
    assert max(sizes) > 2


def test_sentences_are_chosen_oftener_by_their_weight(tokenizer):
    def share(weight):
        config = CaptionConfig(canvas_hw=(60, 80), max_tokens=64, max_boxes=6, max_phrases=1, sentence_weight=weight)
        texts = [tokenizer.decode(one["input_ids"][one["token_mask"]]) for one in captions(tokenizer, config, count=60)]
        return sum(
            any(phrase.text.strip(".") in text for phrase in PHRASES if phrase.text.endswith(".")) for text in texts
        )

    assert share(0.05) < share(20.0)
    with pytest.raises(PizaError, match="sentence_weight is 0"):
        CaptionConfig(sentence_weight=0)


def test_boxes_of_phrases_lie_in_their_picture_and_expressions_come_first():
    split = find_split("train", True)
    shared = 0
    for number in range(40):
        picture = make_picture(split, number)
        width, height = picture.size
        phrases = phrases_of(picture, np.random.default_rng(number))
        for phrase in phrases:
            assert len(set(phrase.boxes_xyxy)) == len(phrase.boxes_xyxy)
            shared += len(phrase.boxes_xyxy) > 1
            for x0, y0, x1, y1 in phrase.boxes_xyxy:
                assert 0 <= x0 < x1 <= width
                assert 0 <= y0 < y1 <= height
        expressions = picture.expressions
        assert [phrase.text for phrase in phrases[: len(expressions)]] == [said.text for said in expressions]
        assert [phrase.boxes_xyxy for phrase in phrases[: len(expressions)]] == [
            (tuple(map(float, picture.box_of(said))),) for said in expressions
        ]
    assert shared > 50


TEXT = "the green car beside the red car on the dark road."
BESIDE = Phrase(TEXT, (GREEN,), mentions=(Mention(TEXT.index("red"), TEXT.index(" on"), (RED,)),))


def test_what_a_sentence_mentions_has_its_tokens_and_is_no_target(tokenizer):
    config = CaptionConfig(canvas_hw=(60, 80), max_tokens=40, max_boxes=3, mentions=True)
    (sample,) = captions(tokenizer, config, (BESIDE,), 1)
    assert sample["target_valid"].tolist() == [True, False, False]
    assert not sample["mentioned"][0].any()
    assert tokenizer.decode(sample["input_ids"][sample["mentioned"][1]]) == "red car"
    box = view_to_photo(sample["target_boxes"][1], np.array(ALL))
    np.testing.assert_allclose(box, RED, atol=1e-3)
    (off,) = captions(tokenizer, CaptionConfig(canvas_hw=(60, 80), max_tokens=40, max_boxes=3), (BESIDE,), 1)
    assert not off["mentioned"].any()
    assert not off["target_boxes"][1:].any()


def test_a_target_that_another_sentence_mentions_is_one_box_and_targets_take_the_room_first(tokenizer):
    config = CaptionConfig(canvas_hw=(60, 80), max_tokens=40, max_boxes=2, min_phrases=2, max_phrases=2, mentions=True)
    for sample in captions(tokenizer, config, (BESIDE, PHRASES[0]), 8):
        assert sample["target_valid"].all()
        both = sample["positive"].any(axis=1) & sample["mentioned"].any(axis=1)
        assert both.sum() == 1
        row = int(np.flatnonzero(both)[0])
        assert tokenizer.decode(sample["input_ids"][sample["positive"][row]]) == "red car"
        assert tokenizer.decode(sample["input_ids"][sample["mentioned"][row]]) == "red car"
        assert not (sample["positive"] & sample["mentioned"]).any()
    small = CaptionConfig(canvas_hw=(60, 80), max_tokens=40, max_boxes=1, mentions=True)
    (sample,) = captions(tokenizer, small, (BESIDE,), 1)
    assert sample["target_valid"].all()
    assert not sample["mentioned"].any()


def test_drawn_sentences_mention_what_they_name_where_it_is_seen():
    split = find_split("train", True)
    found, hidden = 0, 0
    for number in range(60):
        picture = make_picture(split, number)
        for phrase in phrases_of(picture, np.random.default_rng(number)):
            for mention in phrase.mentions:
                name = phrase.text[mention.start : mention.end]
                assert f" {name}" in phrase.text
                if "pole" in name or "lamp post" in name or " in " in f" {name} " or "far away" in name:
                    continue
                things = [thing for thing in picture.scene.things if spoken(thing) == heard(name)]
                boxes = [place(thing.box, picture.window, picture.size) for thing in things]
                for x0, y0, x1, y1 in mention.boxes_xyxy:
                    assert any(b[0] <= x0 and b[1] <= y0 and x1 <= b[2] and y1 <= b[3] for b in boxes)
                found += 1
            said = re.fullmatch(r"All the things .*of the ([^ ]+ [^ ]+)\.", phrase.text)
            hidden += said is not None and not phrase.mentions
    assert found > 300
    assert hidden < 20


def test_drawn_pictures_become_batches(tokenizer):
    source = MiniPictures("val", 4)
    words = Tokenizer.train(source.expressions(), 400)
    batch = next(iter(train_batches(source, words, CONFIG, batch_size=3, seed=0)))
    assert batch["image"].shape == (3, 60, 80, 3)
    assert batch["positive"].shape == (3, 6, 40)
    assert batch["target_valid"].any(axis=1).all()
    with pytest.raises(PizaError, match="num_scenes is 0"):
        MiniPictures("val", 0)


def test_pictures_that_are_kept_are_read_back_as_they_were_drawn(tmp_path, monkeypatch):
    fresh, keeping = MiniPictures("val", 3), MiniPictures("val", 3, tmp_path)
    drawn = [keeping[number] for number in range(3)]
    monkeypatch.setattr(MiniPictures, "_make", lambda *_: pytest.fail("a kept picture was drawn again"))
    kept = [MiniPictures("val", 3, tmp_path)[number] for number in range(3)]
    monkeypatch.undo()
    assert drawn == kept == [fresh[number] for number in range(3)]
    assert any(phrase.mentions for picture in kept for phrase in picture["phrases"])
    assert len(list(tmp_path.glob("val_*/*"))) == 3
    monkeypatch.setattr("piza_jax.data.mini_source._version", lambda: "newer")
    MiniPictures("val", 3, tmp_path)[0]
    assert len(list(tmp_path.glob("val_newer/*"))) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(PizaError, match="cannot keep drawn pictures"):
        MiniPictures("val", 3, tmp_path / "file")


def test_blind_sources_hide_one_half_and_keep_the_other():
    source = SmallSource(3)
    photo, said = BlindSource(source, "photo"), BlindSource(source, "expression")
    assert len(photo) == 3
    grey = decode_rgb(photo[1]["image"], "grey")
    assert grey.shape == (300, 400, 3)
    assert len(np.unique(grey)) == 1
    assert photo[1]["expression"] == source[1]["expression"]
    assert len({said[index]["expression"] for index in range(3)}) == 1
    assert said[2]["image"] == source[2]["image"]
    for blind in (photo, said):
        np.testing.assert_array_equal(blind[0]["box_xyxy"], source[0]["box_xyxy"])
    with pytest.raises(PizaError, match=r"data.hide='x' is none of photo, expression"):
        BlindSource(source, "x")
