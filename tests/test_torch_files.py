"""PyTorch files run nothing: code is refused, and what training frameworks leave beside the weights is stepped over."""

import argparse
import collections
import os
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from piza_jax.convert import mmdet
from piza_jax.convert.tensors import open_weights
from piza_jax.errors import PizaError
from piza_jax.piza.abstract import abstract_detector
from tests import goldens
from tests.weight_files import OLD_WEIGHTS, WEIGHTS, as_torch, save_torch


class Runs:
    """Runs a program when it is unpickled."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


class Mine:
    """A class of the user's own."""


@pytest.mark.parametrize("zipped", [True, False], ids=["new format", "old format"])
def test_code_in_a_file_is_not_run(tmp_path, zipped):
    torch = pytest.importorskip("torch", reason="the parity extra is not installed")
    mark = tmp_path / "was_here"
    for place, held in (
        ("beside", {"state_dict": as_torch(OLD_WEIGHTS), "meta": Runs(os.system, (f"touch {mark}",))}),
        ("evaluated", {"state_dict": as_torch(OLD_WEIGHTS), "meta": Runs(eval, (f"open({str(mark)!r}, 'w')",))}),
        ("below", as_torch(OLD_WEIGHTS) | {"extra": Runs(os.system, (f"touch {mark}",))}),
    ):
        path = save_torch(held, tmp_path / f"{place}.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(
            PizaError, match=rf"{place}\.pth holds more than weights: .*(posix\.system|eval) would"
        ) as error:
            open_weights(path)
        assert "torch.save(torch.load(" in str(error.value)
        assert not mark.exists()
        torch.load(path, weights_only=False)
        assert mark.exists(), "the file is as dangerous as it is meant to be"
        mark.unlink()
    path = save_torch({"model": as_torch(WEIGHTS), "args": Mine()}, tmp_path / "mine.pth")
    with pytest.raises(
        PizaError, match=r"mine\.pth holds more than weights: tests\.test_torch_files\.Mine would be made"
    ):
        open_weights(path)


@pytest.fixture
def framework(monkeypatch):
    """Modules with the names of mmengine's, gone again when the file is read."""

    def module(name: str, **items):
        made = types.ModuleType(name)
        for key, item in items.items():
            item.__module__, item.__qualname__ = name, key
            setattr(made, key, item)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    class HistoryBuffer:
        def __init__(self):
            self._log_history = np.arange(3.0)
            self._count_history = np.arange(3)
            self.statistics = {"mean": HistoryBuffer.mean}

        def mean(self):
            return 0.0

    class ConfigDict(dict):
        def __reduce_ex__(self, protocol):
            return (type(self), (dict(self),))

    class AddictDict(dict):
        pass

    for package in ("mmengine", "mmengine.logging", "mmengine.config", "addict"):
        module(package)
    buffers = module("mmengine.logging.history_buffer", HistoryBuffer=HistoryBuffer)
    HistoryBuffer.mean.__module__ = buffers.__name__
    HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
    module("mmengine.config.config", ConfigDict=ConfigDict)
    module("addict.addict", Dict=AddictDict)
    return lambda: {
        "meta": {
            "cfg": ConfigDict(model=ConfigDict(type="GroundingDINO")),
            "more": AddictDict(a=AddictDict(b=[1, 2])),
            "args": argparse.Namespace(lr=0.1, place=Path("/data")),
            "seen": collections.deque([1, 2], maxlen=5),
            "by_class": collections.defaultdict(list, {"a": [np.float64(0.5), np.int64(3)]}),
            "time": "now",
        },
        "message_hub": {"log_scalars": {"loss": HistoryBuffer()}, "scores": np.ones((2, 2), np.float32)},
        "optimizer": {"state": {0: {"step": 1}}, "param_groups": []},
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["new format", "old format"])
def test_objects_of_mmengine_are_stepped_over(tmp_path, framework, monkeypatch, zipped):
    pytest.importorskip("torch", reason="the parity extra is not installed")
    held = framework() | {"state_dict": as_torch(OLD_WEIGHTS)}
    path = save_torch(held, tmp_path / "epoch_5.pth", _use_new_zipfile_serialization=zipped)
    for name in [name for name in sys.modules if re.match(r"mmengine|addict", name)]:
        monkeypatch.delitem(sys.modules, name)
    weights = open_weights(path)
    assert set(weights) == set(OLD_WEIGHTS)
    np.testing.assert_array_equal(weights["layer.weight"], WEIGHTS["layer.weight"])
    assert not [name for name in sys.modules if re.match(r"mmengine|addict", name)]


def test_a_release_like_file_fills_as_memory_does(tmp_path, framework, shared_dir):
    meta, _ = goldens.load(shared_dir, "mmdet_piza_adapter_b1")
    held = {name: goldens.recipe(name, shape) for name, shape in meta["params"].items()}
    path = save_torch(framework() | {"state_dict": as_torch(held)}, tmp_path / "grounding_dino_swin-t.pth")
    from_memory, ignored = goldens.build(meta)
    from_file = abstract_detector(from_memory.config)
    assert mmdet.load_tensors(from_file, open_weights(path)) == ignored
    leaves = [nnx.to_flat_state(nnx.state(each, nnx.Param)) for each in (from_file, from_memory)]
    for (name, ours), (_, theirs) in zip(*leaves, strict=True):
        np.testing.assert_array_equal(np.asarray(ours[...]), np.asarray(theirs[...]), err_msg=str(name))
