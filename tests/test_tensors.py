"""Weight files: every format and layout gives the same arrays, and little of a file is in memory at once."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from piza_jax.convert import check, mmdet
from piza_jax.convert.lazy import LazyTensors, remapped
from piza_jax.convert.tensors import open_weights
from piza_jax.errors import PizaError
from piza_jax.piza.abstract import abstract_detector
from tests import tiny_detector
from tests.weight_files import LAYOUTS, OLD_WEIGHTS, WEIGHTS, as_torch, save_torch, sharded


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_arrays(tmp_path, layout):
    if "safetensors" not in layout:
        pytest.importorskip("torch", reason="the parity extra is not installed")
    weights = open_weights(LAYOUTS[layout](tmp_path))
    wanted = OLD_WEIGHTS if layout == "pth of old" else WEIGHTS
    assert set(weights) == set(wanted)
    assert len(weights) == len(wanted)
    for name, array in wanted.items():
        assert weights.shapes[name] == array.shape
        assert weights[name].dtype == array.dtype
        assert weights[name].tobytes() == array.tobytes(), name
    with pytest.raises(KeyError):
        weights["absent"]


def test_strided_tensors_and_parameters_are_read(tmp_path):
    torch = pytest.importorskip("torch", reason="the parity extra is not installed")
    base = torch.arange(12.0).reshape(3, 4)
    held = {"turned": base.T, "bent": base.bfloat16().T, "leaf": torch.nn.Parameter(base), "part": base[1:, ::2]}
    weights = open_weights(save_torch(held, tmp_path / "a.pth"))
    for name, tensor in held.items():
        np.testing.assert_array_equal(weights[name].astype(np.float32), tensor.detach().float().numpy())


def test_names_are_known_without_reading_and_files_are_mapped_anew():
    opened, looked_up = [], []

    def open_file():
        opened.append(1)
        return lambda name: looked_up.append(name) or np.zeros(100, np.uint8)

    weights = LazyTensors({name: (100,) for name in "abcdef"}, remapped(open_file, budget=150))
    assert "a" in weights
    assert "z" not in weights
    assert list(weights) == list("abcdef")
    assert (opened, looked_up) == ([], [])
    assert [len(weights[name]) for name in "abcdef"] == [100] * 6
    assert len(opened) == 3, "each mapping serves the two reads that pass its budget"


PEAK = """
import re, sys
from piza_jax.convert.tensors import open_weights
if not sys.argv[1].endswith("tensors"): import torch
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
before, weights = peak(), open_weights(sys.argv[1])
print(sum(weights[name].nbytes for name in weights) / 2**20, peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(("kind", "most"), [("safetensors", 30), ("bin", 110), ("shards", 110)])
def test_reading_holds_little_of_the_file(tmp_path, kind, most):
    arrays = {f"layer.{index}": np.full((1024, 1024), index, np.float32) for index in range(50)}
    path = tmp_path / f"large.{kind}"
    if kind == "safetensors":
        save_file(arrays, path)
    elif kind == "bin":
        save_torch(as_torch(arrays), path)
    else:
        path = sharded(tmp_path, ".bin", arrays)
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    size, peak = map(float, done.stdout.split())
    assert size == 200
    assert peak < most, "where a file is mapped: 64 MB of it, a tensor or two, and the readers' own needs"


def tiny_weights() -> tuple[dict, Callable]:
    config = tiny_detector.model_config()

    def model():
        return abstract_detector(config)

    shapes = check.written_shapes(model(), mmdet.MMDET)
    values = np.random.default_rng(1)
    return {name: values.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}, model


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64], ids=lambda kind: np.dtype(kind).name)
def test_other_floating_types_become_float32_exactly(tmp_path, kind):
    arrays, model = tiny_weights()
    held = {name: array.astype(kind) for name, array in arrays.items()}
    save_file(held, tmp_path / "a.safetensors")
    filled, expected = model(), model()
    mmdet.load_tensors(filled, open_weights(tmp_path / "a.safetensors"))
    mmdet.load_tensors(expected, {name: array.astype(np.float32) for name, array in held.items()})
    leaves = [nnx.to_flat_state(nnx.state(each, nnx.Param)) for each in (filled, expected)]
    for (path, ours), (_, theirs) in zip(*leaves, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(np.asarray(ours[...]), np.asarray(theirs[...]), err_msg=str(path))


@pytest.mark.parametrize("kind", [np.int8, np.bool_, ml_dtypes.float8_e4m3fn], ids=lambda kind: np.dtype(kind).name)
def test_types_that_are_no_plain_numbers_are_refused(tmp_path, kind):
    arrays, model = tiny_weights()
    save_file(arrays | {"memory_trans_fc.bias": np.zeros(128, kind)}, tmp_path / "a.safetensors")
    wanted = f"1 tensors that hold no floating point numbers: memory_trans_fc.bias {np.dtype(kind).name}"
    with pytest.raises(PizaError, match=wanted):
        mmdet.load_tensors(model(), open_weights(tmp_path / "a.safetensors"))
