"""piza doctor on machine, data and checkpoints: what it says, what it advises, and its exit code."""

import json
import shutil
import types
from importlib import metadata
from pathlib import Path

import jax
import pytest

from piza_jax.cli import main
from piza_jax.data.records import PHOTO_FOLDER
from piza_jax.data.scenes import write_scenes
from piza_jax.doctor import check, data_tree, diagnose, machine
from piza_jax.errors import PizaError
from tfds_sorec.build import build


def only(checks, name: str):
    """The one check of a name."""
    (found,) = [one for one in checks if one.name == name]
    return found


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> tuple[Path, Path]:
    folder, data = tmp_path_factory.mktemp("scenes"), tmp_path_factory.mktemp("data")
    write_scenes(folder, 5, size=(320, 240))
    build(folder, data)
    return folder, data


def test_this_machine_passes_and_the_exit_code_says_so(tmp_path, capsys):
    assert main(["doctor", f"--output={tmp_path / 'not' / 'yet'}"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("machine\n  ok      Python: ")
    assert "FAILED" not in printed
    assert f"JAX: cpu, {len(jax.local_devices())} x cpu" in printed
    assert "requirements met, jax " in printed
    assert f"free at {tmp_path}\n" in printed
    assert printed.splitlines()[-1].endswith(" 0 failed")


def test_packages_that_are_absent_or_old_are_named(monkeypatch):
    real = metadata.version

    def version(name: str) -> str:
        if name == "optax":
            raise metadata.PackageNotFoundError(name)
        return {"flax": "0.10.1", "numpy": "1.0"}.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)
    checks = machine.packages()
    packages = only(checks, "packages")
    assert packages.status == "failed"
    assert packages.found == "flax is 0.10.1, not >=0.12; optax is missing"
    assert "pip install" in packages.cure
    pins = only(checks, "pins")
    assert pins.status == "warning"
    assert "numpy 1.0 (pinned " in pins.found


def test_a_device_that_is_absent_computes_wrongly_or_is_not_used_is_told(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(jax, "local_devices", lambda: (_ for _ in ()).throw(RuntimeError("Unknown backend tpu\nmore")))
        (one,) = machine.devices()
        assert (one.status, one.found) == ("failed", "Unknown backend tpu")
        assert "JAX_PLATFORMS" in one.cure
    with monkeypatch.context() as patch:
        patch.setattr(jax, "jit", lambda function: lambda matrix: 2 * function(matrix))
        one = only(machine.devices(), "computation")
        assert one.status == "failed"
        assert "computes wrongly" in one.found
    with monkeypatch.context() as patch:
        (tmp_path / "accelerator").touch()
        patch.setattr(machine, "_ACCELERATORS", (str(tmp_path / "accelerator"),))
        one = only(machine.devices(), "JAX")
        assert one.status == "warning"
        assert "piza-jax[cuda]" in one.cure


def test_memory_is_that_of_the_device_where_it_has_its_own():
    device = types.SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": 80, "bytes_in_use": 30})
    assert machine.device_memory(device) == (80, 50, "gpu device")
    total, free, whose = machine.device_memory(jax.local_devices()[0])
    assert 0 < free <= total
    assert whose == "machine"


@pytest.mark.parametrize(
    ("free", "needed", "status"),
    [(10**8, 0, "failed"), (10**9, 0, "warning"), (10**10, 0, "ok"), (10**10, 10**11, "failed"), (10**9, 10**8, "ok")],
)
def test_disk_space_is_held_against_what_a_run_takes(monkeypatch, tmp_path, free, needed, status):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: types.SimpleNamespace(free=free))
    (found,) = machine.disk(tmp_path / "new", needed)
    assert found.status == status
    assert found.values == {"folder": str(tmp_path), "free_bytes": free, "needed_bytes": needed}
    assert bool(found.cure) == (status != "ok")


def test_an_output_that_is_a_file_is_a_failed_check(tmp_path):
    (tmp_path / "file").touch()
    found = only(diagnose(output=tmp_path / "file"), "disk")
    assert (found.status, found.found) == ("failed", f"{tmp_path / 'file'} is a file; give a folder")


def test_a_built_data_set_is_counted_against_the_published_numbers(scenes, monkeypatch):
    checks, records = data_tree.built(scenes[1], "sorec")
    assert {split: len(listed) for split, listed in records.items()} == {"train_s": 24, "val": 8, "test_a": 8}
    splits = only(checks, "splits")
    assert splits.status == "warning"
    assert "train_s has 24, published are 10,000" in splits.found
    assert "there is no train_l (61,369)" in splits.found
    assert only(checks, "records").status == "ok"
    monkeypatch.setattr(data_tree, "SOREC_COUNTS", {"train_s": 24, "val": 8, "test_a": 8})
    assert only(data_tree.built(scenes[1], "sorec")[0], "splits").status == "ok"


def test_a_data_set_that_is_not_there_is_told_with_the_paths_tried(scenes, capsys):
    assert main(["doctor", f"--data_dir={scenes[1]}", "--dataset=refcoco", "--json"]) == 1
    found = next(one for one in json.loads(capsys.readouterr().out)["checks"] if one["name"] == "data set")
    assert found["status"] == "failed"
    assert found["values"]["tried"] == [f"{scenes[1]}/refcoco/{name}/1.0.0" for name in ("refcoco", "refcoco_photos")]
    assert "there is sorec/expressions, sorec/photos" in found["found"]
    assert "python -m tfds_sorec.build_refcoco" in found["cure"]
    unknown = only(diagnose(data_dir=scenes[1], dataset="cars"), "data set")
    assert unknown.status == "failed"
    assert "there is no data set 'cars'" in unknown.found


def test_photos_of_another_build_are_noticed(scenes, tmp_path):
    write_scenes(tmp_path / "other", 4, seed=30, size=(320, 240))
    build(tmp_path / "other", tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "sorec" / "expressions")
    shutil.copytree(scenes[1] / "sorec" / "expressions", tmp_path / "data" / "sorec" / "expressions")
    checks, _ = data_tree.built(tmp_path / "data", "sorec")
    bad = only(checks, "record 0 of val")
    assert bad.status == "failed"
    assert "expressions and photos were built apart" in bad.found


def test_raw_photos_are_counted_and_found_elsewhere(tmp_path):
    write_scenes(tmp_path, 5, size=(320, 240))
    checks, records = data_tree.raw(tmp_path)
    assert only(checks, "photos").found == f"all 5 photos are at {tmp_path / PHOTO_FOLDER}"
    assert set(records) == {"train_s", "val", "test_a"}
    (tmp_path / PHOTO_FOLDER / "000003.jpg").unlink()
    photos = only(data_tree.raw(tmp_path)[0], "photos")
    assert photos.status == "failed"
    assert photos.found.startswith("1 of 5 are not at ")
    assert photos.values["first_missing"] == ["000003.jpg"]
    assert "--allow_missing_images" in photos.cure
    (tmp_path / PHOTO_FOLDER).rename(tmp_path / "Images")
    (tmp_path / "Images" / "000000.jpg").write_bytes(b"any")
    photos = only(data_tree.raw(tmp_path)[0], "photos")
    assert "which is no folder" in photos.found
    assert photos.cure == f"they lie at {tmp_path / 'Images'}; move them to {tmp_path / PHOTO_FOLDER}, or link it"


def test_raw_annotations_that_are_absent_or_damaged_are_named(tmp_path):
    found = only(data_tree.raw(tmp_path)[0], "annotations")
    assert (found.status, found.found.split(" is in ")[0]) == (
        "failed",
        "none of trainS.json, trainL.json, val.json, testA.json, testB.json",
    )
    write_scenes(tmp_path, 5, size=(320, 240))
    (tmp_path / "val.json").write_text("[{")
    bad = only(data_tree.raw(tmp_path)[0], "val.json")
    assert bad.status == "failed"
    assert "is no JSON at line 1" in bad.found
    assert "there is no folder" in only(data_tree.raw(tmp_path / "none")[0], "raw data").found


def test_real_annotations_count_as_published(shared_dir):
    checks, records = data_tree.raw(shared_dir / "sorec")
    assert {split: len(listed) for split, listed in records.items()} == {
        split: data_tree.SOREC_COUNTS[split] for split in ("train_s", "val", "test_a")
    }
    assert only(checks, "annotations").found == "there is no train_l (61,369); there is no test_b (17,104)"
    assert only(checks, "photos").values["missing"] == 7933


def test_an_error_in_a_check_does_not_stop_the_others():
    def broken():
        raise ZeroDivisionError("by zero")

    def refused():
        raise PizaError("no; do this")

    assert [one.status for one in check.attempt("a", "b", broken)] == ["failed"]
    (found,) = check.attempt("a", "b", refused)
    assert found.found == "no; do this"
    assert "1 ok, 0 warnings, 1 failed" in check.text([found, check.Check("a", "c", "ok", "fine")])


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (25.3e9, "25.3 GB"), (5e12, "5 TB")]
)
def test_sizes_are_said_in_round_numbers(count, said):
    assert check.size(count) == said
