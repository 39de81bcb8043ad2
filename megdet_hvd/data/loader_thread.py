"""Steps loaded by a thread of the training process."""

import os
import queue
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import torch

from megdet_hvd.data.activity import Activity, Idleness, activity
from megdet_hvd.data.room import Room, rooms_from
from megdet_hvd.data.step_loader import IDLE_S, LOOK_S, LoadingFailure, StepLoader, Steps

T = TypeVar("T")

_FINISH_S = 30.0
"""A thread that works is waited for so long at the end: Python cuts off those left over, in the
middle of what they do, and within torch's code that ends the process."""


class LoaderThread(StepLoader[T]):
    """A thread of this process."""

    who = "the loader thread"

    def __init__(self, steps: Steps[T], room: Room | None) -> None:
        super().__init__()
        self._wanted: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._leave = threading.Event()
        # A daemon: Python joins others at exit, and this one may stand before a dead file server.
        self._thread = threading.Thread(
            target=_load_in_thread,
            args=(steps, self._wanted, self.done, room, ready := threading.Event(), self._leave),
            name="loader",
            daemon=True,
        )
        threads = torch.get_num_threads()
        self._thread.start()
        ready.wait()
        torch.set_num_threads(
            threads
        )  # what the thread says of itself, later ones would begin with

    def ask(self, number: int) -> None:
        """Want a step; returns at once."""
        self._wanted.put(number)

    def activity(self) -> Activity | None:
        """How far the kernel says it is."""
        thread = self._thread.native_id
        return None if thread is None else activity(os.getpid(), thread)

    def reading(self, files: Sequence[str]) -> str | None:
        """None: a thread's files are the whole process's."""
        del files
        return None

    def gone(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def how_it_ended(self) -> str:
        """For messages."""
        return "has ended"

    def dismiss(self) -> None:
        """It may leave; returns at once."""
        self._leave.set()
        self._wanted.put(None)

    def close(self) -> None:
        """It ends by itself, after what it is at; it may stand before a file server for longer."""
        if self._thread is threading.current_thread():
            return  # garbage is collected wherever it is found
        idle, end = Idleness(LOOK_S), time.monotonic() + _FINISH_S
        while self._thread.is_alive() and time.monotonic() < end:
            self._thread.join(LOOK_S)
            if idle.seconds(self.activity(), time.monotonic()) >= IDLE_S:
                return


def _load_in_thread(
    steps: Steps[T],
    wanted: "queue.SimpleQueue[int | None]",
    done: "queue.SimpleQueue[Any]",
    room: Room | None,
    ready: threading.Event,
    leave: threading.Event,
) -> None:
    torch.get_num_threads()  # torch asks once a thread; only what is set after that stays
    torch.set_num_threads(1)
    ready.set()
    with nullcontext() if room is None else rooms_from(room):
        while (number := wanted.get()) is not None and not leave.is_set():
            try:
                done.put(steps[number])
            except BaseException as error:
                done.put(LoadingFailure(error))
