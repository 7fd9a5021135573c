"""What is no weight file, or a broken one, says so with the file's name and the cure."""

import json
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from piza_jax.convert import tensors
from piza_jax.convert.tensors import open_weights
from piza_jax.errors import PizaError
from tests.weight_files import LAYOUTS, WEIGHTS, as_torch, prefixed, save_torch, sharded


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

    def refuse(self, *_args):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(tensors.Path, "open", refuse)
    monkeypatch.setattr(tensors.Path, "iterdir", refuse)
    with pytest.raises(PizaError, match=r"a\.safetensors cannot be read \(Permission denied\); check its permissions"):
        open_weights(path)
    with pytest.raises(PizaError, match=rf"^{tmp_path} cannot be read \(Permission denied\)"):
        open_weights(tmp_path)


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
