"""The harness of the benchmarks: who runs when, what is timed, and where a row goes."""

import argparse
import re

import numpy as np
import pytest

from benchmarks import crop, interleaved, peak_memory, peers, pipeline, table
from piza_jax.errors import PizaError


class Clock:
    """Time that only passes when someone works."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self):
        return self.now

    def worker(self, name, *seconds):
        left = list(seconds)

        def work():
            self.log.append(name)
            self.now += left.pop(0)

        return work


def test_sides_alternate_and_the_first_call_is_apart():
    clock = Clock()
    ours = clock.worker("ours", 9.0, 5.0, 1.0, 3.0, 2.0)
    peer = clock.worker("peer", 4.0, 7.0, 2.0, 2.5, 8.0)
    timings = interleaved.alternate(ours, peer, 3, pause=0, clock=clock)
    assert clock.log == ["ours", "peer"] * 5
    assert timings[0] == interleaved.Timing(9.0, (1.0, 3.0, 2.0))
    assert timings[1] == interleaved.Timing(4.0, (2.0, 2.5, 8.0))
    assert timings[0].text() == "2 s (1..3)"
    assert timings[1].text("ms", 1e3) == "2500 ms (2000..8000)"
    with pytest.raises(PizaError, match=r"--runs=0; give at least 1"):
        interleaved.alternate(ours, peer, 0)


def test_a_side_that_settles_is_timed_from_its_second_call_of_a_turn():
    clock = Clock()
    ours = clock.worker("ours", 9.0, 5.0, 7.0, 1.0, 8.0, 3.0)
    peer = clock.worker("peer", 4.0, 7.0, 6.0, 2.0, 9.0, 2.5)
    timings = interleaved.alternate(ours, peer, 2, settle=1, pause=0, clock=clock)
    assert clock.log == ["ours", "peer"] * 2 + ["ours", "ours", "peer", "peer"] * 2
    assert timings == (interleaved.Timing(9.0, (1.0, 3.0)), interleaved.Timing(4.0, (2.0, 2.5)))


def test_the_pipelines_runs_begin_anew_after_their_warm_batches():
    log = []

    def make(name):
        def batches():
            log.append(name)
            for number in range(10):
                log.append(number)
                yield number
            raise AssertionError("read too far")

        return batches

    timings = pipeline.alternate(make("ours"), make("peer"), warm=2, count=3, runs=2)
    assert log == ["ours", 0, 1, 2, 3, 4, "peer", 0, 1, 2, 3, 4] * 2
    assert [len(timing.seconds) for timing in timings] == [2, 2]


def result(ours=2.0, peer=3.0, **changes):
    timings = interleaved.Timing(10.0, (ours,)), interleaved.Timing(0.5, (peer,))
    return table.Result(**{"title": "A | B", "shapes": "2 x 3", "bar": 1.3, "difference": "box 1e-7", **changes},
                        ours=timings[0], peer=timings[1])  # fmt: skip


def test_rows_are_added_under_their_own_heading(tmp_path, monkeypatch, capsys):
    results = tmp_path / "RESULTS.md"
    results.write_text("# Results\n\n## A | B\n\nWords.\n\n## Other\n\nMore words.\n")
    monkeypatch.setattr(table, "RESULTS", results)
    machine = interleaved.Machine("cpu", None, 2, "float32", 0.25)
    options = argparse.Namespace(append=True)
    first = table.report(result(), machine, options, "python -m benchmarks.this --photo 'a b'")
    second = table.report(result(peer=2.2, bar=None), machine, options, "again")
    new = table.report(result(title="New"), machine, options, "new")
    options.append = False
    table.report(result(title="Unwritten"), machine, options, "none")
    lines = results.read_text().splitlines()
    assert lines[:5] == ["# Results", "", "## A | B", "", "Words."]
    head = next(i for i, line in enumerate(lines) if line.startswith("| date |"))
    assert lines[head + 2 : head + 4] == [first, second]
    assert lines.index("## Other") > head + 3
    assert lines[lines.index("## New") + 4] == new
    assert "More words." in lines
    assert "Unwritten" not in results.read_text()
    cells = re.split(r"(?<!\\) \| ", first.strip("| "))
    assert len(cells) == len(table.HEAD) == lines[head + 1].count("---")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", cells[0])
    assert "2 threads, load 0.2" in cells[1]
    assert "jax " in cells[2]
    assert "torch " in cells[2]
    assert cells[4:9] == ["float32", "2 s (2..2)", "3 s (3..3)", "1.50 (bar 1.3)", "box 1e-7"]
    assert cells[9:] == ["10; 0.5", "-", "`python -m benchmarks.this --photo 'a b'`"]
    assert "| 1.10 |" in second
    assert "## A | B" in capsys.readouterr().out
    with pytest.raises(PizaError, match="another head"):
        table.append_row(results, "New", ("other",), "| 1 |")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["RESULTS.md"]


def test_a_row_goes_below_the_first_table_of_its_heading(tmp_path):
    path = tmp_path / "RESULTS.md"
    parts = "\n\nBy part:\n\n| part |\n|---|\n| all |\n\n"
    path.write_text(f"## A\n\n| x |\n|---|\n| 1 |{parts}## B\n\n| y |\n|---|\n")
    table.append_row(path, "A", ("x",), "| 2 |")
    table.append_row(path, "B", ("y",), "| 3 |")
    table.append_row(path, "C", ("z",), "| 4 |")
    assert path.read_text() == (
        f"## A\n\n| x |\n|---|\n| 1 |\n| 2 |{parts}## B\n\n| y |\n|---|\n| 3 |\n\n## C\n\n| z |\n|---|\n| 4 |\n"
    )


def test_sides_that_differ_give_no_row(capsys):
    assert interleaved.check("box", 0.0123, 0.05) == "box 1.2e-02"
    for wrong in (0.06, float("nan")):
        with pytest.raises(PizaError, match="did not compute the same"):
            interleaved.check("box", wrong, 0.05)

    def main():
        raise PizaError("no torch")

    assert table.program(main) == 2
    assert "benchmark: no torch" in capsys.readouterr().err


def test_options_that_the_machine_cannot_follow():
    options = interleaved.parser("About.").parse_args(["--threads=4096"])
    with pytest.raises(PizaError, match="--threads=4096 on"), interleaved.session(options):
        pass
    options = interleaved.parser("About.").parse_args(["--device=gpu"])
    with pytest.raises(PizaError, match="jax and torch sees none"), interleaved.session(options):
        pass


def test_an_answer_is_compared_with_the_best_ones_only():
    boxes = np.array([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.2, 0.2], [0.8, 0.8, 0.2, 0.2]])
    scores = np.array([0.9, 0.8995, 0.5])
    place = (100.0, 200.0, 500.0, 300.0), (480, 640)
    best, tied, worse = [[260, 240, 340, 260], [140, 210, 220, 230], [380, 270, 460, 290]]
    assert peers.apart(best, 0.9, *place, (boxes, scores), 1e-3) == pytest.approx((0, 0), abs=1e-9)
    assert peers.apart(tied, 0.8995, *place, (boxes, scores), 1e-3) == pytest.approx((0, 5e-4), abs=1e-9)
    assert peers.apart(tied, 0.8995, *place, (boxes, scores), 1e-4)[0] == pytest.approx(0.3)
    assert peers.apart(worse, 0.5, *place, (boxes, scores), 1e-3)[1] == pytest.approx(0.4)
    corner = np.array([[0.0, 1.0, 1e-4, 1e-4]])  # no box is thinner than a pixel, or lies outside the photo
    found = peers.apart([0, 479, 1, 480], 0.9, (0, 0, 640, 480), (480, 640), (corner, scores[:1]), 1e-3)
    assert found == pytest.approx((0, 0), abs=1e-3)


def test_crops_lie_in_the_photo_and_end_with_all_of_it():
    boxes = crop.crops((3000, 4000), 8, 0.02)
    sides = boxes[:, 2:] - boxes[:, :2]
    assert (sides[:-1] < sides[1:]).all()
    np.testing.assert_allclose(sides[0], [80, 60], rtol=1e-4)
    np.testing.assert_array_equal(boxes[-1], [0, 0, 4000, 3000])
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] <= [4000, 3000]).all()


def test_peak_memory_is_that_of_the_call():
    if not peak_memory._RESET.exists():
        pytest.skip("only Linux tells the peak memory of a process")

    def need(count):
        return lambda: np.ones(count * 2**20, np.uint8).sum()

    need(300)()  # an earlier peak does not count
    small, large = peak_memory.peak_of(need(20)), peak_memory.peak_of(need(120))
    assert small / 2**20 == pytest.approx(20, abs=5)  # the system counts pages in lots
    assert large / 2**20 == pytest.approx(120, abs=5)
