"""Programs that one process compiled are taken by the next."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from piza_jax import compile_cache
from tests.test_task import ROOT

# Prints the folder, and how many programs were taken from it and put into it.
PROGRAM = """
import collections, jax, jax.numpy as jnp
events = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: events.update([name.rsplit("/", 1)[-1]]))
from piza_jax import compile_cache
compile_cache.LEAST_SECONDS = 0.0
print(compile_cache.enable())
value = jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x).T)(jnp.ones((40, 40)))
print(round(float(value.sum()), 3), events["cache_hits"], events["cache_misses"])
"""


def start(**variables):
    environment = {name: value for name, value in os.environ.items() if name != compile_cache.VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    folder, result = done.stdout.splitlines()
    value, hits, misses = result.split()
    return folder, value, int(hits), int(misses), done.stderr


def test_the_second_start_compiles_nothing(tmp_path):
    first = start(XDG_CACHE_HOME=str(tmp_path))
    second = start(XDG_CACHE_HOME=str(tmp_path))
    assert Path(first[0]).parent == tmp_path / "piza_jax"
    assert second[:2] == first[:2]
    assert first[2] == 0
    assert first[3] > 0
    assert second[2] == first[3]
    assert second[3] == 0


def test_the_users_own_folder_or_none_is_respected(tmp_path):
    assert start(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"))[0] == str(tmp_path / "own")
    assert list((tmp_path / "own").iterdir())
    folder, _, hits, misses, _ = start(JAX_COMPILATION_CACHE_DIR="", XDG_CACHE_HOME=str(tmp_path / "home"))
    assert (folder, hits, misses) == ("None", 0, 0)
    assert not (tmp_path / "home").exists()


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    folder, _, _, _, warning = start(XDG_CACHE_HOME=str(tmp_path / "file"))
    assert folder == "None"
    assert "compiled programs are not kept" in warning


def test_the_command_line_program_keeps_what_it_compiles(monkeypatch):
    from piza_jax import cli

    kept = []
    monkeypatch.setattr(compile_cache, "enable", lambda: kept.append(1))
    monkeypatch.setattr(sys, "argv", ["piza", "version"])
    with pytest.raises(SystemExit) as end:
        cli.program()
    assert (end.value.code, kept) == (0, [1])
    assert cli.main(["version"]) == 0  # the function for others leaves jax as it is
    assert kept == [1]
