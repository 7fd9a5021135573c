"""Stopping a run gently: a signal becomes a question that the loop asks after each step."""

import signal
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils


class StopSignal:
    """Within the context, SIGTERM (or a first Ctrl-C) asks the loop to save and stop instead of ending the process."""

    def __init__(self) -> None:
        self._flag = threading.Event()
        self._previous: dict[int, Any] = {}

    def requested(self, step: int) -> bool:
        """Whether to stop after this step; the same answer in every process."""
        if jax.process_count() > 1:  # jax's own notice of preemption, agreed on by all
            return multihost_utils.reached_preemption_sync_point(step)
        return self._flag.is_set()

    def __enter__(self) -> "StopSignal":
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._flag.set()
        self._restore()  # a second signal ends the process at once

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
