"""The recipes of docs/launch start commands that exist, with settings that exist."""

import re
import shlex
import shutil
import subprocess

import pytest
import yaml

from piza_jax.cli import _parser
from piza_jax.training.config import load_config
from tests.test_task import ROOT

FOLDER = ROOT / "docs" / "launch"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
MANIFEST = FOLDER / "jobset.yaml"


def commands(text):
    """The words of every command `piza ...` of a shell script, with variables as they stand."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = re.findall(r"(?:^|[;&]|srun [^\n]*?|exec )\s*(piza (?:train|doctor)[^\n;]*)", joined, re.M)
    return [shlex.split(line.removesuffix('"') if line.count('"') % 2 else line) for line in lines]


def check(words):
    options, rest = _parser().parse_known_args(words[1:])
    if options.command == "train":
        spec, settings = options.config, [word for word in rest if "$" not in word]
        config = load_config(str(ROOT / spec), settings)
        assert config.data.split == "train_l"
        assert config.train.batch_size % 8 == 0
        for word in rest:
            load_config(str(ROOT / spec), [re.sub(r"\$\{?\w+\}?", "8", word)])
    else:
        assert not rest
    return options.command


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_shell_and_their_commands_are_understood(path):
    text = path.read_text(encoding="utf-8")
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", path], check=False).returncode == 0
    assert "train" in [check(words) for words in commands(text)]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_say_what_they_miss_before_they_do_anything(path):
    bare = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere"}
    done = subprocess.run(["bash", path], env=bare, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert re.search(r"(TPU|DATA): (name of|the TFDS)", done.stderr)


def test_the_manifest_is_a_jobset_whose_hosts_and_chips_add_up():
    manifest = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = manifest["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    assert spec["parallelism"] == spec["completions"]
    assert spec["parallelism"] * container["resources"]["limits"]["google.com/tpu"] == rows * columns
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert check(container["command"]) == "train"
    batch = next(word for word in container["command"] if "batch_size" in word)
    assert int(batch.partition("=")[2]) % (rows * columns) == 0


def test_every_recipe_is_listed():
    text = (ROOT / "docs" / "launch.md").read_text(encoding="utf-8")
    for path in (*SCRIPTS, MANIFEST):
        assert f"(launch/{path.name})" in text
