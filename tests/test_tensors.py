"""Weight files: every format and layout gives the same arrays, and what is no weight file says so."""

import json
import os
import re
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from piza_jax.convert import check, mmdet, tensors
from piza_jax.convert.lazy import LazyTensors, remapped
from piza_jax.convert.tensors import open_weights
from piza_jax.errors import PizaError
from piza_jax.piza.abstract import abstract_detector
from tests import goldens, tiny_detector

rng = np.random.default_rng(0)
WEIGHTS = {
    "layer.weight": rng.normal(size=(3, 5)).astype(np.float32),
    "layer.bias": rng.normal(size=5).astype(np.float32),
    "scale": np.array(1.5, np.float32),
    "double": rng.normal(size=4),
    "half": rng.normal(size=(2, 2)).astype(np.float16),
    "brain": rng.normal(size=(3, 7)).astype(ml_dtypes.bfloat16),
    "quarter": rng.normal(size=6).astype(ml_dtypes.float8_e4m3fn),
    "byte": np.arange(4, dtype=np.int8),
    "flag": np.array([True, False]),
}
OLD_WEIGHTS = {name: array for name, array in WEIGHTS.items() if name != "quarter"}  # the old format has no float8


def as_torch(arrays: dict) -> dict:
    torch = pytest.importorskip("torch", reason="the parity extra is not installed")

    def tensor(array: np.ndarray):
        if array.dtype.name in ("bfloat16", "float8_e4m3fn"):
            bits = torch.from_numpy(array.view(np.int16 if array.itemsize == 2 else np.uint8))
            return bits.view(getattr(torch, array.dtype.name))
        return torch.from_numpy(array)

    return {name: tensor(array) for name, array in arrays.items()}


def save_torch(held, path: Path, **options) -> Path:
    import torch

    torch.save(held, path, **options)
    return path


def sharded(folder: Path, ending: str) -> Path:
    """The weights in three shards with an index beside them."""
    folder.mkdir(exist_ok=True)
    places = {name: f"part-{index % 3}{ending}" for index, name in enumerate(WEIGHTS)}
    for shard in sorted(set(places.values())):
        held = {name: WEIGHTS[name] for name in WEIGHTS if places[name] == shard}
        save_file(held, folder / shard) if ending == ".safetensors" else save_torch(as_torch(held), folder / shard)
    index = folder / ("model.safetensors.index.json" if ending == ".safetensors" else "pytorch_model.bin.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


def prefixed(held: dict, prefix: str) -> dict:
    return {prefix + name: value for name, value in held.items()}


LAYOUTS = {
    "safetensors": lambda p: save_file(WEIGHTS, p / "a.safetensors") or p / "a.safetensors",
    "safetensors folder": lambda p: save_file(WEIGHTS, p / "model.safetensors") or p,
    "safetensors index": lambda p: sharded(p / "s", ".safetensors"),
    "safetensors shards in a folder": lambda p: sharded(p / "s", ".safetensors").parent,
    "bin": lambda p: save_torch(as_torch(WEIGHTS), p / "pytorch_model.bin"),
    "bin folder": lambda p: save_torch(as_torch(WEIGHTS), p / "pytorch_model.bin").parent,
    "bin shards in a folder": lambda p: sharded(p / "s", ".bin").parent,
    "pt, module in names": lambda p: save_torch(prefixed(as_torch(WEIGHTS), "module."), p / "a.pt"),
    "pth, below model": lambda p: save_torch(
        {"model": prefixed(as_torch(WEIGHTS), "module."), "epoch": 3, "lr": 0.1}, p / "a.pth"
    ),
    "pth, below state_dict": lambda p: save_torch({"state_dict": as_torch(WEIGHTS), "optimizer": {}}, p / "a.pth"),
    "pth, below module": lambda p: save_torch({"module": as_torch(WEIGHTS)}, p / "a.pth"),
    "pth of old": lambda p: save_torch(as_torch(OLD_WEIGHTS), p / "a.pth", _use_new_zipfile_serialization=False),
}


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
if sys.argv[1].endswith("bin"): import torch
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
before, weights = peak(), open_weights(sys.argv[1])
print(sum(weights[name].nbytes for name in weights) / 2**20, peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_reading_holds_little_of_the_file(tmp_path, kind):
    arrays = {f"layer.{index}": np.full((1024, 1024), index, np.float32) for index in range(50)}
    path = tmp_path / f"large.{kind}"
    save_file(arrays, path) if kind == "safetensors" else save_torch(as_torch(arrays), path)
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    size, peak = map(float, done.stdout.split())
    assert size == 200
    assert peak < 110, "64 MB of mapped pages, a tensor or two, and the readers' own needs"


def tiny_weights() -> tuple[dict, callable]:
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
    with pytest.raises(PizaError, match=r"mine\.pth holds more than weights: tests\.test_tensors\.Mine would be made"):
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
            "args": __import__("argparse").Namespace(lr=0.1, place=Path("/data")),
            "seen": __import__("collections").deque([1, 2], maxlen=5),
            "by_class": __import__("collections").defaultdict(list, {"a": [np.float64(0.5), np.int64(3)]}),
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


def cut(path: Path, keep: float = 0.6) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    return path


def rewritten(path: Path, entry: str, contents: bytes) -> Path:
    """A zip archive with the contents of one entry replaced."""
    with zipfile.ZipFile(path) as archive:
        items = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, held in items.items():
            archive.writestr(name, contents if name.endswith(entry) else held)
    return path


def raw_safetensors(path: Path, header: str, contents: bytes) -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + contents)
    return path


def text(path: Path, contents: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(contents)
    return path


def index_with(folder: Path, change) -> Path:
    index = sharded(folder / "s", ".safetensors")
    content = json.loads(index.read_text())
    change(content, index.parent)
    index.write_text(json.dumps(content))
    return index


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 689359096\n"
FOUR_BITS = '{"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}'
BAD = {
    "absent": (lambda p: p / "no.pth", r"there is no file .*no\.pth"),
    "empty safetensors": (lambda p: text(p / "a.safetensors"), r"a\.safetensors is empty; download"),
    "empty pth": (lambda p: text(p / "a.pth"), r"a\.pth is empty; download"),
    "pointer safetensors": (lambda p: text(p / "a.safetensors", LFS), r"a\.safetensors is a git-lfs pointer.*lfs pull"),
    "pointer bin": (lambda p: text(p / "a.bin", LFS), r"a\.bin is a git-lfs pointer.*git lfs pull"),
    "pointer in a folder": (lambda p: text(p / "f/model.safetensors", LFS).parent, r"model\.safetensors is a git-lfs"),
    "web page": (lambda p: text(p / "a.pth", "<!DOCTYPE html><html>"), r"a\.pth is a web page, not weights"),
    "cut safetensors": (lambda p: cut(LAYOUTS["safetensors"](p)), r"a\.safetensors is damaged or no safetensors file"),
    "garbage safetensors": (lambda p: text(p / "a.safetensors", "x" * 99), r"a\.safetensors is damaged or no safetens"),
    "safetensors of four bits": (
        lambda p: raw_safetensors(p / "a.safetensors", FOUR_BITS, b"x"),
        r"a\.safetensors holds tensors of the types F4; save them as",
    ),
    "cut pth": (lambda p: cut(LAYOUTS["pth, below model"](p)), r"a\.pth is damaged or no file that torch\.save wrote"),
    "cut old pth": (lambda p: cut(LAYOUTS["pth of old"](p)), r"a\.pth is damaged or no file that torch\.save wrote"),
    "cut old pth, early": (lambda p: cut(LAYOUTS["pth of old"](p), 0.1), r"a\.pth is damaged or no file that torch"),
    "garbage pth": (lambda p: text(p / "a.pth", "x" * 99), r"a\.pth is damaged or no file that torch\.save wrote"),
    "garbage in a zip": (
        lambda p: rewritten(LAYOUTS["bin"](p), "data.pkl", b"\x80\x02garbage"),
        r"pytorch_model\.bin is damaged or no file that torch\.save wrote \(",
    ),
    "cut pickle in a zip": (
        lambda p: rewritten(LAYOUTS["bin"](p), "data.pkl", b"\x80\x02}q\x00(X\x01\x00\x00\x00a"),
        r"pytorch_model\.bin is damaged or no file that torch\.save wrote \(",
    ),
    "another zip": (
        lambda p: zipfile.ZipFile(p / "a.pth", "w").writestr("readme", "hello") or p / "a.pth",
        r"a\.pth is damaged or no file that torch\.save wrote \(",
    ),
    "no tensors": (
        lambda p: save_torch({"epoch": 3, "names": ["a"]}, p / "a.pth"),
        r"a\.pth holds no named tensors but the entries epoch, names; tensors are looked for at the top",
    ),
    "a list": (lambda p: save_torch([1, 2], p / "a.pth"), r"a\.pth holds no named tensors but a list"),
    "both spellings": (
        lambda p: save_torch(as_torch(WEIGHTS) | prefixed(as_torch(WEIGHTS), "module."), p / "a.pth"),
        r"a\.pth holds the same names with and without 'module\.'",
    ),
    "folder of something": (lambda p: text(p / "f/readme.md", "x").parent, r"holds no weights: none of .*readme\.md"),
    "empty folder": (lambda p: p, r"holds no weights: none of model\.safetensors, .*; it has nothing"),
    "other ending": (
        lambda p: text(p / "a.onnx", "x"),
        r"a\.onnx is no weight file .* known endings are \.safetensors",
    ),
    "shard absent": (
        lambda p: index_with(p, lambda _, folder: (folder / "part-1.safetensors").unlink()),
        r"model\.safetensors\.index\.json names the shards part-1\.safetensors, which are not beside it",
    ),
    "shard cut": (
        lambda p: index_with(p, lambda _, folder: cut(folder / "part-1.safetensors") and None),
        r"part-1\.safetensors is damaged",
    ),
    "tensor not in its shard": (
        lambda p: index_with(p, lambda content, _: content["weight_map"].update(more="part-0.safetensors")),
        r"puts the tensor more into part-0\.safetensors, which does not hold it",
    ),
    "index without map": (lambda p: text(p / "m.index.json", "{}"), r"m\.index\.json is no index of a sharded set"),
    "index no json": (lambda p: text(p / "m.index.json", "weights"), r"m\.index\.json is no index of a sharded set"),
    "index absent": (lambda p: p / "m.index.json", r"there is no file .*m\.index\.json"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_weight_file_says_so(tmp_path, case):
    if re.search("pth|zip|spellings|tensors|list", case):
        pytest.importorskip("torch", reason="the parity extra is not installed")
    make, message = BAD[case]
    with pytest.raises(PizaError, match=message):
        open_weights(make(tmp_path))


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    path = LAYOUTS["safetensors"](tmp_path)
    tensors_path = tensors.Path

    def refuse(self, *_args):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(tensors_path, "open", refuse)
    with pytest.raises(PizaError, match=r"a\.safetensors cannot be read \(Permission denied\); check its permissions"):
        open_weights(path)


def test_a_file_that_changes_while_it_is_read_says_so(tmp_path):
    path = LAYOUTS["safetensors"](tmp_path)
    weights = open_weights(path)
    cut(path)
    with pytest.raises(PizaError, match=r"a\.safetensors changed or went away while \S+ was read"):
        dict(weights)
    path.unlink()
    with pytest.raises(PizaError, match=r"a\.safetensors changed or went away while scale was read"):
        weights["scale"]


def test_a_tensor_that_is_no_plain_array_is_named(tmp_path):
    torch = pytest.importorskip("torch", reason="the parity extra is not installed")
    path = save_torch({"sparse": torch.eye(3).to_sparse(), "a": torch.ones(1)}, tmp_path / "a.pth")
    weights = open_weights(path)
    np.testing.assert_array_equal(weights["a"], [1])
    with pytest.raises(PizaError, match=r"a\.pth: the tensor sparse \(float32, torch\.sparse_coo\) cannot be read"):
        weights["sparse"]


def test_a_pytorch_file_without_torch_says_what_to_install(tmp_path, monkeypatch):
    path = text(tmp_path / "a.pth", "PK\x03\x04")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(PizaError, match=r'torch is not installed; run pip install "piza-jax\[parity\]"'):
        open_weights(path)
