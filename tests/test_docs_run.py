"""The commands of the README, of the pages and of `--help`, run with their own options in a small world.

The files that they name are there before them, as a reader would have them, and what they are to write is there
after them, and not before. They run in the order of the pages, for some go on from what others made.
"""

import re
import shlex
import shutil
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from piza_jax.cli_examples import EXAMPLES
from tests import test_benchmarks
from tests.docs_world import FOUND_ELSEWHERE, adapted, begins, execute, small_world, start
from tests.ports import free_port
from tests.test_docs import EVERY
from tests.test_task import ROOT

pytestmark = pytest.mark.slow

# What is not run here, by how a command begins -> the tests that run the same program.
ELSEWHERE = {
    "python -m pip": "a whole run of CI, which installs as the README's second command does",
    "python -m pytest": "a whole run of CI",
    "python -m colab.execute": "test_notebooks.py",
    "python -m benchmarks.quickstart": "test_quickstart.py",
    **dict.fromkeys(
        [f"python -m benchmarks.{name}" for name in (*test_benchmarks.RUNS, *test_benchmarks.LONG)],
        "test_benchmarks.py",
    ),
    "piza plan --config=configs/piza_sorec.py:tpu --topology": "test_tpu_compile.py",
}
SERVERS = ("piza demo", "python -m mkdocs serve")
OUTPUTS = ("save", "output", "report", "strips", "preview", "draw", "workdir", "curve")

COMMANDS = {" ".join(words): words for _, words in EVERY}
COMMANDS |= {" ".join(shlex.split(line)): shlex.split(line) for lines in EXAMPLES.values() for line in lines}
TOGETHER = [line for line in COMMANDS if "--coordinator" in line]
SERVED = [line for line in COMMANDS if line.startswith(SERVERS)]
ALONE = [line for line in COMMANDS if not begins(line, ELSEWHERE) and line not in (*TOGETHER, *SERVED)]
# Pages name one file in several ways; what is the same command here runs once.
RUN = list({tuple(FOUND_ELSEWHERE.get(word, word) for word in COMMANDS[line]): line for line in ALONE}.values())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with small_world(tmp_path_factory.mktemp("world")) as folder:
        yield folder


@pytest.mark.parametrize("line", RUN, ids=str)
def test_a_command_of_the_documentation_runs(line, world, tmp_path):
    words = adapted(COMMANDS[line], str(tmp_path / "new"))
    named = [word.partition("=")[2] for word in words if re.match(rf"--({'|'.join(OUTPUTS)})=", word)]
    named += [str(tmp_path / "new")] if any(str(tmp_path / "new") in word for word in words) else []
    for path in map(Path, named):  # what another command has written under this name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    assert execute(words) == 0
    for name in named:
        assert Path(name).exists(), f"{line} left no {name}"


@pytest.mark.parametrize("line", TOGETHER, ids=str)
def test_the_processes_of_a_command_with_a_coordinator_train_together(line, world, tmp_path):
    address, count = f"127.0.0.1:{free_port()}", 2
    changes = {"--coordinator=HOST:8476": f"--coordinator={address}", "--num_processes=4": f"--num_processes={count}"}
    words = [changes.get(word, word) for word in adapted(COMMANDS[line], str(tmp_path / "new"))]
    assert set(changes.values()) <= set(words)
    running = [
        start([f"--process_id={number}" if word == "--process_id=0" else word for word in words])
        for number in range(count)
    ]
    printed = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0] * count, printed[0][-2000:] + printed[1][-2000:]
    assert f"2 x cpu, {count} process(es)" in printed[0]
    assert [path.name for path in (tmp_path / "new" / "checkpoints").iterdir() if path.name.isdigit()] == ["1"]


@pytest.mark.parametrize("line", SERVED, ids=str)
def test_a_server_of_the_documentation_shows_its_page_and_ours_end_by_ctrl_c(line, world, monkeypatch):
    words, address = adapted(COMMANDS[line], "new"), f"127.0.0.1:{free_port()}"
    words = [word for word in words if not word.startswith("--port=")]
    if words[0] == "python":
        monkeypatch.chdir(ROOT)
        words += [f"--dev-addr={address}"]
    else:
        words += [f"--port={address.rpartition(':')[2]}"]
    process = start(words)
    try:
        shown = wait_for_page(f"http://{address}/", process)
        assert "piza" in shown.lower()
        if "mkdocs" not in words:  # which hangs at times when it is interrupted
            process.send_signal(signal.SIGINT)
            output = process.communicate(timeout=60)[0]
            assert process.returncode == 0, output[-2000:]
    finally:
        process.kill()


def wait_for_page(address, process):
    """The page at an address, once something answers there."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5) as page:
                return page.read().decode()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.3)
    process.kill()
    raise AssertionError(f"no page at {address}: {process.communicate()[0][-2000:]}")


def test_what_is_not_run_here_is_run_by_tests_that_name_the_program():
    for command, where in ELSEWHERE.items():
        assert any(line.startswith(command) for line in COMMANDS), f"no page shows {command}"
        for name in re.findall(r"test_\w+\.py", where):
            program = command.split()[2 if command.startswith("python") else 1].rpartition(".")[2]
            assert re.search(rf"\b{program}\b", (ROOT / "tests" / name).read_text(encoding="utf-8")), command
