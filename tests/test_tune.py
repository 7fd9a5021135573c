"""What is chosen on a validation split: the way to zoom, and the score below which nothing was found."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import piza_jax
from piza_jax import PizaError
from piza_jax.cli import main
from piza_jax.data.records import RecordSource, read_annotations
from piza_jax.evaluation import metrics, tune
from piza_jax.evaluation.evaluate import predictions
from piza_jax.evaluation.geometry import overlaps
from tests.fake_detector import loaded, write_records

SIZES = [(500, 400)] * 5
ZOOM = {"canvas_hw": (96, 96), "min_crop_px": 16.0, "crop_method": "dense", "max_steps": 4}
SCORES = st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=1, max_size=12).map(np.array)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    return write_records(folder, SIZES), RecordSource(read_annotations(folder / "made.json"), folder)


def open_grounder(zoom):
    return piza_jax.load(loaded(**ZOOM), batch_size=5, **zoom)


@given(SCORES, SCORES)
def test_no_other_threshold_separates_better(present, absent):
    chosen = tune.choose_threshold(present, absent)
    assert chosen.found == np.mean(present >= chosen.value)
    assert chosen.rejected == np.mean(absent < chosen.value)
    for other in np.linspace(0, 1, 201):
        assert np.mean(present >= other) + np.mean(absent < other) <= chosen.found + chosen.rejected + 1e-12
    wins = [(a > b) + 0.5 * (a == b) for a in present for b in absent]
    assert chosen.ranked == pytest.approx(np.mean(wins))


def test_a_threshold_lies_in_the_middle_of_what_it_separates():
    chosen = tune.choose_threshold(np.array([0.8, 0.9]), np.array([0.1, 0.3]))
    assert chosen == tune.Threshold(pytest.approx(0.55), 1.0, 1.0, 1.0)


def test_stopping_is_chosen_with_few_paths_and_then_comparing():
    first = tune.ways_of_stopping((2, 1), (0.5, 0.9), (0.0, 0.5))
    assert {(way["beam"], way["path_score"]) for way in first} == {(1, "mean_log")}
    assert [(way["stop_threshold"], way["backtrack"]) for way in first] == [(0.5, 0), (0.5, 0.5), (0.9, 0), (0.9, 0.5)]
    second = tune.ways_of_comparing(first[2], (2, 1))
    assert [way["path_score"] for way in second] == ["mean_log", "product", "last"]
    assert {(way["beam"], way["stop_threshold"], way["backtrack"]) for way in second} == {(2, 0.9, 0.0)}
    # What was tried with the fewest paths already is not tried again.
    few = tune.ways_of_stopping((3,), (0.5,), (0.0,))
    assert [way["path_score"] for way in tune.ways_of_comparing(few[0], (3,))] == ["product", "last"]


def test_a_model_that_looks_once_more_by_itself_is_tried_without_first(files):
    def own_way(zoom):
        return piza_jax.load(loaded(**ZOOM, last_look=4.0), batch_size=5, **zoom)

    trials = tune.search(own_way, files[1], 2, (1,), (0.95,), (0.0,))
    assert [trial.zoom["last_look"] for trial in trials] == [0.0, 0.0, 7.0, 7.0]
    assert trials[0].passes + 1 <= min(trial.passes for trial in trials[2:])


def test_the_search_goes_on_from_the_best_way_to_stop(files):
    seen = []
    trials = tune.search(open_grounder, files[1], 4, (1, 2), (0.5, 0.95), (0.0,), seen.append)
    assert seen == trials
    scored, rest = trials[2 : 2 + len(tune.LAYERS)], trials[2 + len(tune.LAYERS) :]
    assert [trial.zoom for trial in scored] == tune.ways_of_scoring(tune.best(trials[:2]).zoom)
    top = tune.best(trials[: 2 + len(scored)])
    rest, last = rest[: -len(tune.LAST_LOOKS)], rest[-len(tune.LAST_LOOKS) :]
    assert [trial.zoom for trial in last] == tune.ways_of_a_last_look(tune.best(trials[: -len(last)]).zoom)
    compared, back = rest[: -len(tune.LOOK_BACKS)], rest[-len(tune.LOOK_BACKS) :]
    assert [trial.zoom for trial in compared] == tune.ways_of_comparing(top.zoom, (1, 2))
    assert [trial.zoom for trial in back] == tune.ways_of_looking_back(tune.best(compared).zoom)
    assert [trial.zoom["look_back"] for trial in back] == list(tune.LOOK_BACKS)
    for trial in trials:
        found = list(predictions(open_grounder(trial.zoom), files[1], 4))
        assert trial.count == len(found) == 4
        np.testing.assert_allclose(trial.scores, [one.grounding.path_score for one in found])
        # The best end of all paths, found without the arrays that the search keeps.
        ends = [[one.iou, *alternatives(one)] for one in found]
        ceiling = np.mean([np.float32(max(values)) >= metrics.THRESHOLDS for values in ends])
        assert trial.ceiling == pytest.approx(ceiling)
        assert trial.ceiling >= trial.accuracy - 1e-6
        if trial.zoom["beam"] == 1:
            assert trial.ceiling == pytest.approx(trial.accuracy)


def alternatives(prediction):
    target = np.array(prediction.target)
    return [float(overlaps(np.array(end.box), target)) for end in prediction.grounding.alternatives]


def test_the_most_accurate_way_is_chosen_and_then_the_cheapest():
    trials = [tune.Trial({"beam": n}, 5, accuracy, passes) for n, accuracy, passes in ((1, 0.5, 2), (2, 0.7, 6))]
    trials.append(tune.Trial({"beam": 3}, 5, 0.7, 4))
    assert tune.best(trials).zoom == {"beam": 3}
    assert [row.split(" | ")[0] for row in tune.table([]).splitlines()] == ["| beam", "| ---"]
    with pytest.raises(PizaError, match="no way to zoom"):
        tune.best([])


def test_absent_targets_are_sentences_of_other_photos(files):
    records = [dict(files[1][index]) for index in range(len(files[1]))]
    grounder = open_grounder({})
    absent = tune.absent_scores(grounder, records)
    moved = [
        {**record, "expression": records[(index + len(records) // 2) % len(records)]["expression"]}
        for index, record in enumerate(records)
    ]
    np.testing.assert_allclose(absent, [one.grounding.path_score for one in predictions(grounder, moved)])
    with pytest.raises(PizaError, match="at least two photos"):
        tune.absent_scores(grounder, records[:1])


def test_the_command_chooses_and_its_file_is_taken(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("piza_jax.grounder.open_model", lambda *_, **__: loaded(**ZOOM))
    path = tmp_path / "zoom.json"
    tried = ["--beams", "1", "2", "--stops", "0.95", "--backtracks", "0", "--batch_size=5"]
    assert main(["tune", "--checkpoint=any", *files[0], *tried, f"--output={path}"]) == 0
    stored, printed = json.loads(path.read_text()), capsys.readouterr().out
    assert len(stored["trials"]) == 4 + len(tune.LOOK_BACKS) + len(tune.LAYERS) + len(tune.LAST_LOOKS)
    top = max(stored["trials"], key=lambda trial: (trial["accuracy"], -trial["passes"]))
    assert stored["zoom"] == top["zoom"] | {"no_target_threshold": stored["threshold"]["value"]}
    assert stored["learnt"]["chosen"] is False
    assert f"{stored['learnt']['records']} records of the others" in printed
    assert stored["learnt"]["zoom"]["learnt"]["rule"] in ("last", "mean_log", "product")
    assert f"no target below a path score of {stored['threshold']['value']:.3f}" in printed
    evaluate = ["evaluate", "--checkpoint=any", *files[0], "--json", "--batch_size=5"]
    assert main([*evaluate, f"--zoom={path}"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["made"]["all"]["mAcc"] == pytest.approx(top["accuracy"])
    for wrong, says in ((tmp_path / "no.json", "cannot read"), (path.with_name("bad.json"), "not a file of piza tune")):
        (tmp_path / "bad.json").write_text("[]")
        assert main([*evaluate, f"--zoom={wrong}"]) == 2
        assert says in capsys.readouterr().err
