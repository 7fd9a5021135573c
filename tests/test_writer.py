"""Metric files: lines on disk at once, resumable, readable by TensorBoard's format."""

import json
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from piza_jax.errors import PizaError
from piza_jax.training.writer import MetricsWriter, read_metrics


def read_events(folder):
    """Scalars {(tag, step): value} of every event file: records of length, crc, payload, crc."""
    scalars = {}
    for path in sorted(folder.glob("events.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            scalars.update({(value.tag, event.step): value.simple_value for value in event.summary.value})
            data = data[16 + length :]
    return scalars


def test_line_is_on_disk_when_write_returns(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"loss": 0.5})
        writer.write(2, {"loss": float("nan"), "rate": 1})
        assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None, "rate": 1.0}]
        assert all(json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())


def test_resume_drops_later_and_broken_lines(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for step in range(1, 6):
            writer.write(step, {"loss": float(step)})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')
    assert len(read_metrics(tmp_path)) == 5
    with MetricsWriter(tmp_path, resume_step=3) as writer:
        writer.write(4, {"loss": 40.0})
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [(1, 1), (2, 2), (3, 3), (4, 40)]


def test_fresh_start_empties_the_file(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"loss": 1.0})
    with MetricsWriter(tmp_path):
        assert read_metrics(tmp_path) == []


def test_tensorboard_events(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(3, {"loss": 0.25, "eval/mAcc": 0.5})
    assert read_events(tmp_path) == {("loss", 3): 0.25, ("eval/mAcc", 3): 0.5}


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PizaError, match="cannot write metrics"):
        MetricsWriter(tmp_path / "file")
