"""One of several processes that measure a batch together: prints what it finds, as JSON.

Its arguments are the address of the first process, the number of processes, and its own number.
"""

import json
import sys

import jax
import numpy as np

from piza_jax.evaluation import groups, metrics
from piza_jax.evaluation.details import Outcomes
from tests.test_details import make

COUNT = 301  # in two batches of 256, the last one filled up
BATCH = 256


def headline(outcomes, put=lambda array: array):
    """SOREC's measures of all samples, in batches."""
    parts = []
    for start in range(0, COUNT, BATCH):
        rows = [np.asarray(column)[start : start + BATCH] for column in outcomes]
        padded = [np.pad(row, [(0, BATCH - len(row))] + [(0, 0)] * (row.ndim - 1)) for row in rows]
        batch = Outcomes(*map(put, padded))
        parts.append(jax.jit(metrics.measure)(batch.iou, batch.steps, batch.area_px2, batch.valid))
    return metrics.summarise({"all": metrics.merge(parts)})["all"]


def details(outcomes, put=lambda array: array):
    """Every measure of the first batch."""
    batch = Outcomes(*(put(np.asarray(column)[:BATCH]) for column in outcomes))
    return groups.summarise_details(jax.jit(groups.measure_details)(batch))


def main(address: str, processes: int, number: int) -> None:
    """Measure this process's part of each batch, on its own devices."""
    jax.distributed.initialize(address, processes, number)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))

    def put(array):
        own = array[number * BATCH // processes : (number + 1) * BATCH // processes]
        return jax.make_array_from_process_local_data(sharding, own, array.shape)

    outcomes = make(8, COUNT)[2]
    found = {"headline": headline(outcomes, put), "details": details(outcomes, put), "devices": jax.device_count()}
    print(json.dumps(found), flush=True)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
