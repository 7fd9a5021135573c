"""Real processes of one run, eight devices in all: equal to one, stopped, killed, and started in another number."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from piza_jax.cli import main
from piza_jax.training.distributed import processes
from tests import process_run
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


def start(workdir, count, *options):
    """The processes of a run."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "tests.process_run", str(workdir), address, str(count)]
    return [
        subprocess.Popen(
            [*command, str(number), *map(str, options)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]


def finish(running, timeout=240):
    """Exit codes and everything printed."""
    ended = [process.communicate(timeout=timeout) for process in running]
    return [process.returncode for process in running], [output + errors for output, errors in ended]


def run(workdir, count, *options):
    codes, printed = finish(start(workdir, count, *options))
    assert codes == [0] * count, printed[-1][-3000:]
    return printed[0]


def losses(workdir):
    lines = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    return np.array([line["loss"] for line in lines])


def wait_for_step(workdir, running, step):
    path = Path(workdir) / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and all(process.poll() is None for process in running):
        if path.exists() and len(path.read_text().splitlines()) >= step:
            return
        time.sleep(0.01)
    raise AssertionError(f"the run never reached step {step}: {finish(running)[1]}")


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one")
    run(workdir, 1)
    found = losses(workdir)
    assert len(found) == 20
    assert found[-1] < found[0]
    return found


@pytest.mark.parametrize(("count", "fsdp"), [(2, 1), (4, 2)])
def test_processes_together_equal_one(tmp_path, one_process, count, fsdp):
    printed = run(tmp_path, count, "--fsdp", fsdp)
    assert f"8 x cpu, {count} process(es); mesh data {8 // fsdp} x fsdp {fsdp} x tensor 1" in printed
    np.testing.assert_allclose(losses(tmp_path), one_process, rtol=1e-5)


def test_killed_process_ends_the_others_and_another_number_goes_on(tmp_path, one_process):
    running = start(tmp_path, 2, "--slow", 0.02)
    wait_for_step(tmp_path, running, 9)
    running[1].send_signal(signal.SIGKILL)
    began = time.monotonic()
    codes, printed = finish(running, timeout=90)
    assert time.monotonic() - began < 60
    assert codes[0] != 0
    assert codes[1] == -signal.SIGKILL
    assert printed[0].strip()
    assert len(losses(tmp_path)) < 20
    saved = max(int(entry.name) for entry in (tmp_path / "checkpoints").iterdir() if entry.name.isdigit())
    assert saved in (4, 8, 12, 16)
    printed = run(tmp_path, 4, "--fsdp", 4)
    assert f"resumed from step {saved}" in printed
    np.testing.assert_allclose(losses(tmp_path), one_process, rtol=1e-5)


def test_notice_to_one_process_saves_and_ends_all(tmp_path, one_process):
    running = start(tmp_path, 2, "--slow", 0.02)
    wait_for_step(tmp_path, running, 5)
    running[1].send_signal(signal.SIGTERM)
    codes, printed = finish(running)
    assert codes == [0, 0], printed
    stopped = int(printed[0].split("done step=")[1].split()[0])
    assert stopped < 20
    assert f"stopped by a signal after step {stopped}, which is saved" in printed[0]
    assert f"resumed from step {stopped}" in run(tmp_path, 1)
    np.testing.assert_allclose(losses(tmp_path), one_process, rtol=1e-5)


def test_order_of_examples_does_not_depend_on_the_number_of_processes():
    def positions(count, batches):
        parts = [process_run.make_batches(number, count) for number in range(count)]
        iterators = [iter(part) for part in parts]
        return [np.concatenate([next(it)["position"] for it in iterators]).tolist() for _ in range(batches)], iterators

    alone, (iterator,) = positions(1, 3)
    assert alone == [list(range(16 * n, 16 * n + 16)) for n in range(3)]
    assert positions(4, 3)[0] == positions(2, 3)[0] == alone
    # A state saved by one process is where four of them go on.
    state = iterator.get_state()
    following = next(iterator)["position"].tolist()
    parts = [iter(process_run.make_batches(number, 4)) for number in range(4)]
    for part in parts:
        part.set_state(state)
    assert np.concatenate([next(part)["position"] for part in parts]).tolist() == following


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_processes=2", "--process_id=0"], r"needs --coordinator too"),
        (["--coordinator=10.0.0.1:1234"], r"needs --num_processes and --process_id too"),
        (["--coordinator=10.0.0.1", "--num_processes=2", "--process_id=0"], r"not of the form HOST:PORT"),
        (["--coordinator=a:1", "--num_processes=2", "--process_id=2"], r"--process_id=2 is not in 0..1"),
    ],
)
def test_flags_that_do_not_fit(flags, message, tmp_path, capsys):
    assert main(["train", "--config=configs/scenes.py:smoke", f"--workdir={tmp_path}", *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_process_without_a_cluster_is_alone():
    with processes():
        pass


def test_coordinator_that_is_not_there(tmp_path):
    code = (
        "import sys\nfrom piza_jax.errors import PizaError\nfrom piza_jax.training.distributed import processes\n"
        f"try:\n    with processes('127.0.0.1:{free_port()}', 2, 1, connect_timeout_s=3):\n        pass\n"
        "except PizaError as error:\n    sys.exit(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr[-2000:]
    assert "process 1 could not join the others at 127.0.0.1:" in done.stderr
