"""Several processes as one run: who they are is found out from the cluster, or said by flags."""

import contextlib
import re
import socket
import time
from collections.abc import Iterator

import jax

from piza_jax.errors import PizaError

# A process that has been silent for so long counts as dead, and the others end with an error instead of waiting for it.
HEARTBEAT_TIMEOUT_S = 60


@contextlib.contextmanager
def processes(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    connect_timeout_s: int = 300,
    heartbeat_timeout_s: int = HEARTBEAT_TIMEOUT_S,
) -> Iterator[None]:
    """Within the context, the processes of a run know each other. Enter it before anything else of jax runs.

    Without arguments jax looks for a Cloud TPU slice, GKE, SLURM or Open MPI around this process, and where there is
    none the process is alone.

    Args:
        coordinator: HOST:PORT of process 0, which listens there.
        num_processes: how many there are.
        process_id: which of them this is, from 0 on.
        connect_timeout_s: how long to wait for the others at the start.
        heartbeat_timeout_s: after how long a silent process counts as dead.

    Raises:
        PizaError: some of the three are given without the others, or make no sense; the coordinator cannot be reached.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    absent = [f"--{name}" for name, value in given.items() if value is None]
    if 0 < len(absent) < 3:
        raise PizaError(f"a process of several needs {' and '.join(absent)} too; give all three, or none in a cluster")
    if not absent:
        _check(str(coordinator), int(num_processes or 0), int(process_id or 0))
        if process_id:
            _wait_for(str(coordinator), int(process_id), connect_timeout_s)
    elif not _in_cluster():
        yield
        return
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            # Given all, jax looks for no cluster; every local device belongs to this process.
            cluster_detection_method="deactivate" if not absent else None,
            initialization_timeout=connect_timeout_s,
            heartbeat_timeout_seconds=heartbeat_timeout_s,
        )
    except (ValueError, RuntimeError) as error:
        place = coordinator or "the coordinator that the cluster names"
        raise PizaError(
            f"process {process_id if process_id is not None else ''} could not join the others at {place}: "
            f"{str(error).splitlines()[0][:300]}; check that process 0 runs, that its port is open and that "
            "all processes are given the same --coordinator and --num_processes"
        ) from error
    try:
        yield
    except BaseException:
        # The others may be dead or waiting elsewhere: leaving at once lets them find out.
        raise
    else:
        jax.distributed.shutdown()


def _check(coordinator: str, num_processes: int, process_id: int) -> None:
    if not re.fullmatch(r".+:\d+", coordinator):
        raise PizaError(f"--coordinator={coordinator} is not of the form HOST:PORT, such as 10.0.0.1:8476")
    if num_processes < 1 or not 0 <= process_id < num_processes:
        raise PizaError(
            f"--process_id={process_id} is not in 0..{num_processes - 1}, with --num_processes={num_processes}"
        )


def _wait_for(coordinator: str, process_id: int, timeout_s: float) -> None:
    """Until process 0 listens. jax itself ends the process without an exception when it does not find it."""
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise PizaError(
                    f"process {process_id} could not join the others at {coordinator} within {timeout_s:g} s "
                    f"({error}); check that process 0 runs and that its port is open"
                ) from error
            time.sleep(0.2)


def _in_cluster() -> bool:
    """Whether jax finds more than one process in a cluster around this one."""
    from jax._src.clusters import ClusterEnv  # jax.distributed.is_initialized does not tell what initialize would find

    for kind in ClusterEnv._cluster_types:
        try:
            if not kind.opt_in_only_method and kind.is_env_present():
                return kind.get_process_count() > 1
        except Exception:
            continue
    return False
