"""Runs that are killed, stopped or out of disk go on as if nothing had happened (real processes, real signals)."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def start(workdir, *options):
    command = [sys.executable, "-m", "tests.tiny_task", str(workdir), *map(str, options)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process, code=0):
    output, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors[-3000:]
    return output, errors


def wait_for_step(workdir, process, step):
    """Until metrics.jsonl has a line of that step."""
    path = Path(workdir) / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and len(path.read_text().splitlines()) >= step:
            return
        time.sleep(0.002)
    raise AssertionError(f"the run never reached step {step}: {process.communicate()[1][-2000:]}")


def losses(workdir):
    """The whole record of a run, bit for bit: JSON keeps every digit of a float."""
    lines = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["grad_norm"], line["absolute_error"]) for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    finish(start(workdir))
    record = losses(workdir)
    assert [line[0] for line in record] == list(range(1, 21))
    assert len({line[1] for line in record}) == 20
    return record


def test_sigkill_at_a_random_step(tmp_path, uninterrupted):
    step = random.SystemRandom().randint(7, 17)  # step 6 is saved only once the save of step 3 is complete
    process = start(tmp_path, "--slow", 0.02)
    wait_for_step(tmp_path, process, step)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(losses(tmp_path)) < 20, f"killed too late, after step {step}"
    last_good = max(int(entry.name) for entry in (tmp_path / "checkpoints").iterdir() if entry.name.isdigit())
    assert last_good in (3, 6, 9, 12, 15)
    output, _ = finish(start(tmp_path))
    assert f"resumed from step {last_good}" in output
    assert losses(tmp_path) == uninterrupted


def test_sigkill_before_the_first_checkpoint(tmp_path, uninterrupted):
    process = start(tmp_path, "--slow", 0.05)
    wait_for_step(tmp_path, process, 1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finish(start(tmp_path))
    assert losses(tmp_path) == uninterrupted


def test_kill_during_a_save(tmp_path, uninterrupted):
    process = start(tmp_path, "--kill-at-commit", 9)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    folder = tmp_path / "checkpoints"
    assert any(entry.name.startswith("9.") for entry in folder.iterdir()), "the half-written checkpoint is there"
    assert {entry.name for entry in folder.iterdir() if entry.name.isdigit()} == {"3", "6"}
    output, _ = finish(start(tmp_path))
    assert "resumed from step 6" in output
    assert losses(tmp_path) == uninterrupted
    assert all(entry.name.isdigit() for entry in folder.iterdir()), "the half-written checkpoint is cleaned away"


def test_sigterm_saves_and_the_next_start_goes_on(tmp_path, uninterrupted):
    process = start(tmp_path, "--slow", 0.01)
    wait_for_step(tmp_path, process, 4)
    process.send_signal(signal.SIGTERM)
    output, _ = finish(process)
    stopped = int(output.split("done step=")[1].split()[0])
    assert "interrupted=True" in output
    assert (tmp_path / "checkpoints" / str(stopped)).is_dir()
    output, _ = finish(start(tmp_path))
    assert f"resumed from step {stopped}" in output
    assert losses(tmp_path) == uninterrupted


def test_full_disk_during_a_save(tmp_path):
    finish(start(tmp_path / "whole", "--width", 256, "--steps", 12))
    finish(start(tmp_path / "run", "--width", 256, "--steps", 6))
    # The arrays of this checkpoint take more bytes than a file may have; the small files still fit.
    _, errors = finish(start(tmp_path / "run", "--width", 256, "--steps", 12, "--file-limit", 100_000), code=1)
    assert "PizaError: the checkpoint of step 9 could not be written" in errors
    assert "the last good checkpoint is step 6" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "run" / "checkpoints" / "9").exists()
    output, _ = finish(start(tmp_path / "run", "--width", 256, "--steps", 12))
    assert "resumed from step 6" in output
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_finished_run_started_again_does_nothing(tmp_path):
    finish(start(tmp_path, "--steps", 3))
    before = {path: path.read_bytes() for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()}
    output, _ = finish(start(tmp_path, "--steps", 3))
    assert "nothing to do" in output
    assert {path: path.read_bytes() for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()} == before


def test_a_run_with_workers_leaves_no_shared_memory(tmp_path):
    output, errors = finish(start(tmp_path, "--steps", 6, "--workers", 2))
    assert "done step=6 interrupted=False" in output
    assert "leaked shared_memory" not in errors
