"""Work spread over processes, its results in order."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Task], Result], tasks: Iterable[Task], workers: int | None = None, chunk: int = 4
) -> Iterator[Result]:
    """The results of a function for each task, in the order of the tasks.

    Args:
        function: importable by name, since other processes run it.
        tasks: what it is called with.
        workers: number of processes; None takes one for each core, 1 works in this process.
        chunk: tasks that a process takes at a time; as few as these are done in this process.
    """
    todo = list(tasks)
    count = min(workers or len(os.sched_getaffinity(0)), -(-len(todo) // chunk))
    if count <= 1:
        yield from map(function, todo)
        return
    # Forking a process that runs JAX's threads may hang.
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        yield from pool.imap(function, todo, chunksize=chunk)
