"""The benchmark of decoding runs, and counts what it says it counts."""

import re

import numpy as np

from benchmarks import decode
from tests.small_source import record


def test_small_run_prints_every_table(capsys):
    decode.main(["--small"])
    shown = capsys.readouterr().out
    rows = re.findall(r"^\| (whole|as needed) \| (\d) \| .* \| ([\d.]+) \| ([\d.]+) \|$", shown, re.M)
    assert [row[:2] for row in rows] == [("whole", "1"), ("whole", "4"), ("as needed", "1"), ("as needed", "4")]
    assert rows[0][3] == "1.00"
    steps = re.findall(r"^\| (\d) \| ([\d, ]+) \| ([\d.]+) \| ([\d.]+) \| (\d+) \|$", shown, re.M)
    assert [step[0] for step in steps] == ["0", "1", "2"]
    assert steps[0][1] == "2"  # 2048 pixels on a canvas of 384, or as few as 346
    assert 0 < float(steps[0][2]) < 1
    assert steps[2][1:] == ("1", "0.00", "0.00", "0")
    assert "| 0.5 s | 128 |" in shown


def test_copies_are_photos_of_their_own():
    photos = decode.by_photo([record(0), record(0), record(1)])
    assert [len(one) for one in photos] == [2, 1]
    source = decode.Copies(photos, 3)
    assert len(source) == 6 * decode.EXPRESSIONS_A_PHOTO
    names = [source[index]["name"] for index in range(len(source))]
    assert len(set(names)) == 6
    for photo in range(6):
        assert len({names[index] for index in np.flatnonzero(source.photo_index == photo)}) == 1
