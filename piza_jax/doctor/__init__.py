"""``piza doctor``: is everything there, does it work, and what is to be done where not."""

import os
from collections.abc import Sequence

import jax

from piza_jax.data.records import Record
from piza_jax.doctor import data_tree, machine, model
from piza_jax.doctor.check import Check, attempt, text

__all__ = ["Check", "diagnose", "text"]

_Path = str | os.PathLike[str]


def diagnose(
    *,
    data_dir: _Path | None = None,
    dataset: str = "sorec",
    manual_dir: _Path | None = None,
    checkpoint: _Path | None = None,
    tokenizer: _Path | None = None,
    output: _Path = ".",
) -> Sequence[Check]:
    """Make every check that the arguments allow; none stops the others.

    Args:
        data_dir: folder of built data sets.
        dataset: the one to look at.
        manual_dir: folder with SOREC's annotations and SODA-D's photos.
        checkpoint: any source of weights.
        tokenizer: of the checkpoint, where it ships none.
        output: where something is to be written.

    Returns:
        The checks in the order of the report; nothing is raised.
    """
    checks = attempt(machine.GROUP, "Python", machine.python)
    checks += attempt(machine.GROUP, "packages", machine.packages)
    checks += attempt(machine.GROUP, "JAX", machine.devices)
    records: dict[str, list[Record]] = {}
    weights: list[model.Weights] = []

    def look_at_data() -> Sequence[Check]:
        found, listed = data_tree.built(data_dir or "", dataset)
        records.update(listed)
        return found

    def look_at_raw() -> Sequence[Check]:
        found, listed = data_tree.raw(manual_dir or "")
        for split, split_records in listed.items():
            records.setdefault(split, split_records)
        return found

    def look_at_checkpoint() -> Sequence[Check]:
        weights.append(model.open_checkpoint(checkpoint or "", tokenizer))
        return model.checkpoint(weights[0], checkpoint or "")

    def hold_together() -> Sequence[Check]:
        total, _, whose = machine.device_memory(jax.local_devices()[0])
        return [*model.memory(weights[0], total, whose), *model.token_lengths(weights[0], records)]

    data = attempt(data_tree.GROUP, "data set", look_at_data) if data_dir else []
    data += attempt(data_tree.GROUP, "raw data", look_at_raw) if manual_dir else []
    of_model = attempt(model.GROUP, "format", look_at_checkpoint) if checkpoint else []
    of_model += attempt(model.GROUP, "memory", hold_together) if weights else []
    needed = weights[0].disk_bytes if weights else 0
    checks += attempt(machine.GROUP, "disk", lambda: machine.disk(output, needed))
    return [*checks, *data, *of_model]
