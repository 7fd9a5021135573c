"""SOREC-mini drawn as it is asked for: records by index with nothing built or stored."""

import dataclasses
import hashlib
import json
import os
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from piza_jax.data import world
from piza_jax.data.captions import Mention, Phrase
from piza_jax.data.world.phrases import phrases_of
from piza_jax.data.world.pictures import Picture, make_picture, photo_of
from piza_jax.data.world.splits import Split, find_split
from piza_jax.errors import PizaError


class MiniSource:
    """Records of the first scenes of a split, as data/pipeline.py takes them; the same as those of a built data set.

    Each picture is drawn when one of its records is asked for (about a tenth of a second); the last few are kept.
    """

    def __init__(self, split: str, num_scenes: int, normal: bool = False):
        """Find the expressions of the scenes, which takes a hundredth of a second for each.

        Args:
            split: "train_s", "train_l", "val", "test_a" or "test_b"; "train" or "val" of the normal variant.
            num_scenes: how many scenes, from the first.
            normal: the variant with targets of ordinary size.

        Raises:
            PizaError: for an unknown split, or a number of scenes that it does not have.
        """
        self.split, self.normal = _split_of(split, num_scenes, normal), normal
        pictures = (make_picture(self.split, number) for number in range(num_scenes))
        self.records = [(picture.number, record) for picture in pictures for record in picture.records]

    def __len__(self) -> int:
        """Number of expressions."""
        return len(self.records)

    def expressions(self) -> list[str]:
        """All expressions, in order, without drawing anything: for training a tokenizer."""
        return [record.expression for _, record in self.records]

    @property
    def photo_index(self) -> np.ndarray:
        """Int64 [N], equal for the expressions of one picture."""
        return np.array([number for number, _ in self.records], np.int64)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Expression number ``index`` with the JPEG of its picture."""
        number, record = self.records[int(index)]
        return {
            "image": _jpeg(self.split.name, self.normal, number),
            "name": record.image,
            "id": record.id,
            "expression": record.expression,
            "box_xyxy": np.array(record.box_xyxy, np.float32),
        }


@lru_cache(maxsize=8)
def _jpeg(split: str, normal: bool, number: int) -> bytes:
    return photo_of((find_split(split, normal), number))[-1]


class MiniPictures:
    """Pictures of the normal variant with all that can be said of each, as data/captions.py takes them.

    A picture is drawn when it is first asked for and then kept, some 30 KB each.
    """

    def __init__(self, split: str, num_scenes: int, cache_dir: str | os.PathLike[str] = ""):
        """Prepare the first ``num_scenes`` scenes of the split "train" or "val".

        Args:
            split: its name.
            num_scenes: how many scenes, from the first.
            cache_dir: where drawn pictures are kept, for all processes and runs that ask for them; "" keeps them in
                memory, each process its own.

        Raises:
            PizaError: for an unknown split, a number of scenes that it does not have, or a folder that cannot be made.
        """
        self.split, self.num_scenes = _split_of(split, num_scenes, True), num_scenes
        self._made: dict[int, dict[str, Any]] = {}
        self._folder = Path(cache_dir) / f"{split}_{_version()}" if cache_dir else None
        if self._folder is not None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise PizaError(
                    f"cannot keep drawn pictures in {self._folder}: {error}; give another folder"
                ) from error

    def __len__(self) -> int:
        """Number of pictures."""
        return self.num_scenes

    def expressions(self) -> list[str]:
        """What is said of the pictures, in order, without drawing them: for training a tokenizer."""
        numbers = range(self.num_scenes)
        return [phrase.text for number in numbers for phrase in self._phrases(make_picture(self.split, number))]

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Picture number ``index``: image, name, id and phrases."""
        number = int(index)
        if self._folder is not None:
            return self._kept(self._folder / f"{number:06d}", number)
        if number not in self._made:
            self._made[number] = self._make(number)
        return self._made[number]

    def _make(self, number: int) -> dict[str, Any]:
        picture = make_picture(self.split, number)
        return {"image": picture.jpeg(), "name": picture.name, "id": number, "phrases": self._phrases(picture)}

    def _kept(self, path: Path, number: int) -> dict[str, Any]:
        """A picture from its file, a line of JSON and the JPEG behind it; drawn and written where there is none yet."""
        if not path.exists():
            made = self._make(number)
            said = {**made, "phrases": [dataclasses.asdict(phrase) for phrase in made["phrases"]]}
            jpeg = said.pop("image")
            temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
            temporary.write_bytes(json.dumps(said).encode() + b"\n" + jpeg)
            temporary.replace(path)
            return made
        line, _, jpeg = path.read_bytes().partition(b"\n")
        said = json.loads(line)
        return {**said, "phrases": [_phrase(**fields) for fields in said["phrases"]], "image": jpeg}

    def _phrases(self, picture: Picture) -> list[Phrase]:
        return phrases_of(picture, np.random.default_rng([self.split.seed(picture.number), 3]))


def _phrase(boxes_xyxy: list[list[float]], mentions: list[dict[str, Any]], **fields: Any) -> Phrase:
    """A Phrase from what JSON makes of one."""

    def boxes(lists: list[list[float]]) -> Any:
        return tuple(map(tuple, lists))

    named = (Mention(one["start"], one["end"], boxes(one["boxes_xyxy"])) for one in mentions)
    return Phrase(boxes_xyxy=boxes(boxes_xyxy), mentions=tuple(named), **fields)


@lru_cache(maxsize=1)
def _version() -> str:
    """Of what draws and speaks: pictures that another version made are not taken for its own."""
    files = sorted(Path(world.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def _split_of(name: str, num_scenes: int, normal: bool) -> Split:
    """A split that has that many scenes; PizaError otherwise."""
    if num_scenes < 1:
        raise PizaError(f"num_scenes is {num_scenes}; it must be at least 1")
    split = find_split(name, normal)
    split.seed(num_scenes - 1)
    return split
