"""A checkpoint: its format, size, tokenizer and files, and whether it fits the device and the data."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from piza_jax.convert.look import Seen, look, parameters
from piza_jax.data.records import Record
from piza_jax.data.tokenize import Tokenizer
from piza_jax.doctor.check import Check, size
from piza_jax.errors import PizaError
from piza_jax.training.checkpoint import is_workdir, latest_step, look_at_model

GROUP = "checkpoint"
_FLOAT = 4  # bytes of a parameter
_KEPT = 4  # checkpoints on disk at once: the three that stay and the one being written


@dataclasses.dataclass(frozen=True)
class Weights:
    """What other checks need of a checkpoint.

    Attributes:
        seen: the checkpoint.
        total: parameters.
        trainable: those that its method trains.
    """

    seen: Seen
    total: int
    trainable: int

    @property
    def inference_bytes(self) -> int:
        """The parameters alone."""
        return _FLOAT * self.total

    @property
    def training_bytes(self) -> int:
        """Parameters, and gradient and two moments of those that train."""
        return _FLOAT * (self.total + 3 * self.trainable)

    @property
    def disk_bytes(self) -> int:
        """Frozen parameters once, and trainable ones with two moments in each checkpoint that is kept."""
        return _FLOAT * (self.total - self.trainable + _KEPT * 3 * self.trainable)


def open_checkpoint(path: str | os.PathLike[str], tokenizer: str | os.PathLike[str] | None = None) -> Weights:
    """Look at any source of weights, a work directory included, without reading an array.

    Raises:
        PizaError: nothing that can be recognised there, or tensors that do not belong to the detector it says it is.
    """
    if is_workdir(path):
        model, config, files = look_at_model(path)
        place = Path(tokenizer or Path(path) / "tokenizer.json")
        found = Tokenizer.from_file(place) if place.is_file() else None
        seen = Seen("workdir", model, config.peft, False, config.data.max_tokens, found, tuple(files))
    else:
        seen = look(path, tokenizer)
    total, trainable = parameters(seen.model, seen.method) if seen.model is not None else (0, 0)
    return Weights(seen, total, trainable)


def checkpoint(weights: Weights, path: str | os.PathLike[str]) -> list[Check]:
    """Format, parameters, tokenizer and files."""
    seen = weights.seen
    kind = f"{seen.origin}, an adapter without its base" if seen.alone else seen.origin
    if seen.origin == "workdir":
        kind += f", step {latest_step(path)}"
    checks = [Check(GROUP, "format", "ok", f"{kind}; method {seen.method}", values={"origin": seen.origin})]
    if seen.model is None:
        checks.append(Check(GROUP, "tensors", "ok", "those of an adapter; its base is needed to say more"))
    else:
        values = {"parameters": weights.total, "trainable": weights.trainable}
        found = f"names and shapes fit; {weights.total:,} parameters, {weights.trainable:,} of them trained"
        checks.append(Check(GROUP, "tensors", "ok", found, values=values))
    if seen.tokenizer is None:
        cure = (
            "give --tokenizer=FOLDER with tokenizer.json or vocab.txt of its text backbone, here and in every command"
        )
        checks.append(Check(GROUP, "tokenizer", "warning", "none beside the weights", cure))
    else:
        checks.append(Check(GROUP, "tokenizer", "ok", f"{seen.tokenizer.vocab_size:,} tokens"))
    return [*checks, _files(seen.files, Path(path))]


def _files(files: Sequence[Path], root: Path) -> Check:
    """One hash of a file, or of many: that of their names and hashes in order."""
    total = sum(file.stat().st_size for file in files)
    hashes = {_name(file, root): _sha256(file) for file in files}
    if len(files) == 1:
        digest, named = next(iter(hashes.values())), files[0].name
    else:
        lines = "".join(f"{one}  {name}\n" for name, one in hashes.items())
        digest, named = hashlib.sha256(lines.encode()).hexdigest(), f"{len(files)} files"
    values = {"sha256": digest, "bytes": total, "files": hashes if len(files) <= 50 else len(files)}
    return Check(GROUP, "files", "ok", f"{named}, {size(total)}, sha256 {digest}", values=values)


def _name(file: Path, root: Path) -> str:
    root = root.resolve()
    return str(file.resolve().relative_to(root)) if root in file.resolve().parents else file.name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def memory(weights: Weights, total: int, whose: str) -> list[Check]:
    """What is known of a model's memory against that of a device, ``total`` bytes, whoever's they are.

    Views and activations are not counted: they depend on canvas and batch, and piza train prints the compiled step's
    memory before the first one.
    """
    if not weights.total:
        return []
    use, train = weights.inference_bytes, weights.training_bytes
    values = {"inference_bytes": use, "training_bytes": train, "device_bytes": total}
    found = (
        f"at least {size(use)} to use it, {size(train)} to train it, of {size(total)} ({whose}), without activations"
    )
    if use > total:
        return [Check(GROUP, "memory", "failed", found, "take a smaller model or a larger device", values)]
    if train > 0.7 * total:
        cure = "train with fewer parameters (peft=), or spread them over devices: --config.mesh.fsdp=NUMBER"
        return [Check(GROUP, "memory", "warning", found, cure, values)]
    return [Check(GROUP, "memory", "ok", found, values=values)]


def token_lengths(weights: Weights, records: Mapping[str, Sequence[Record]]) -> list[Check]:
    """The longest expression of each split in tokens, against the limit of the checkpoint."""
    tokenizer, limit = weights.seen.tokenizer, weights.seen.max_tokens
    if tokenizer is None or not records:
        return []
    longest, over, first = {}, 0, ""
    for split, listed in records.items():
        longest[split] = 0
        for record in listed:
            try:
                count = len(tokenizer.tokens(record.expression))
            except PizaError as error:
                return [Check(GROUP, "token lengths", "failed", f"record {record.id} of {split}: {error}")]
            longest[split] = max(longest[split], count)
            if count > limit:
                over += 1
                first = first or f"id {record.id} of {split}"
    values = {"longest": longest, "limit": limit, "too_long": over}
    found = f"longest {', '.join(f'{split} {count}' for split, count in longest.items())}; the limit is {limit}"
    if not over:
        return [Check(GROUP, "token lengths", "ok", found, values=values)]
    cure = "train with a higher --config.data.max_tokens, or shorten the expressions; piza data shows how long they are"
    return [Check(GROUP, "token lengths", "failed", f"{over:,} are too long, first {first}: {found}", cure, values)]
