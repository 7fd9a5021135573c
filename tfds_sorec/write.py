"""Both configurations of a data set written as one: either they are there when it ends, or nothing new is."""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from piza_jax.errors import PizaError

# (configuration, data_dir) -> builder
Make = Callable[[str, str], tfds.core.DatasetBuilder]


def write_together(
    make: Make,
    configs: Sequence[str],
    data_dir: str | os.PathLike[str],
    manual_dir: str | os.PathLike[str] | None = None,
) -> list[tfds.core.DatasetBuilder]:
    """Build the configurations beside their place and move them there when all are complete.

    Args:
        make: gives the builder of a configuration in a data_dir.
        configs: what to build; where all of them are complete already, they stay as they are.
        data_dir: made where it is not there.
        manual_dir: where the builders find the files of the user.

    Returns:
        The builders in data_dir, built.

    Raises:
        PizaError: from the builders; data_dir cannot be written; or one configuration alone is there.
    """
    data_dir = Path(data_dir)
    there = [config for config in configs if make(config, os.fspath(data_dir)).info.splits]
    if len(there) == len(configs):
        return [make(config, os.fspath(data_dir)) for config in configs]
    if there:
        place = make(there[0], os.fspath(data_dir)).data_dir
        raise PizaError(f"{place} is there without {', '.join(set(configs) - set(there))}; remove it and build again")
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.mkdtemp(prefix=".building-", dir=data_dir)
    except OSError as error:
        raise PizaError(f"cannot write to data_dir {data_dir}: {error}") from error
    try:
        for config in configs:
            builder = make(config, temporary)
            download = tfds.download.DownloadConfig(manual_dir=os.fspath(manual_dir) if manual_dir else None)
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS would name the temporary folder
                builder.download_and_prepare(download_config=download)
        for config in configs:
            source = Path(make(config, temporary).data_dir).parent
            target = Path(make(config, os.fspath(data_dir)).data_dir).parent
            target.parent.mkdir(exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)  # versions that were left incomplete
            os.replace(source, target)
    except OSError as error:
        raise PizaError(f"the data set could not be written to {data_dir}: {error}; nothing new is there") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [make(config, os.fspath(data_dir)) for config in configs]
