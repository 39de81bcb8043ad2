"""Steps loaded by a process of its own, which hands its pictures over by itself.

They lie in shared memory, or go through a pipe where that is full; its errors become the caller's.
"""

import logging
import multiprocessing
import pickle
import queue
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch
import torch.multiprocessing  # teaches pickle to hand tensors over in shared memory

from megdet_hvd.data.activity import Activity, activity, open_file
from megdet_hvd.data.room import Room, rooms_from
from megdet_hvd.data.shared_memory import Receiver, Sender
from megdet_hvd.data.step_loader import IDLE_S, LoadingFailure, StepLoader, Steps
from megdet_hvd.data.worker_count import STEPS_AHEAD
from megdet_hvd.data.workers import fork_server, leave_with_parent

T = TypeVar("T")

_LEAVE_S = 1.0
"""For a process to leave when it is told to; then it is killed."""

LOGGER = logging.getLogger("megdet_hvd")


class LoaderProcess(StepLoader[T]):
    """A process of its own, that a thread of this one listens to."""

    def __init__(self, steps: Steps[T], room: Room | None) -> None:
        """Raises OSError, EOFError: it could not be started."""
        super().__init__()
        wanted, self._wanted = multiprocessing.Pipe(duplex=False)
        here, done = multiprocessing.Pipe(duplex=False)
        try:
            self._process = fork_server().Process(
                target=_load_in_process, args=(steps, wanted, done), name="loader", daemon=True
            )
            self._process.start()
        except BaseException:
            self._wanted.close()
            here.close()
            raise
        finally:
            wanted.close()
            done.close()
        # Taking a step out of the pipe may block as well: its sender may be stopped in the middle.
        self._listener = threading.Thread(
            target=_listen, args=(here, self.done, room), name="loader", daemon=True
        )
        self._listener.start()

    @property
    def who(self) -> str:
        """For messages."""
        return f"the loader process {self._process.pid}"

    def ask(self, number: int) -> None:
        """Want a step; returns at once."""
        with suppress(OSError):  # it is gone; whoever takes a step is told
            self._wanted.send(number)

    def activity(self) -> Activity | None:
        """How far the kernel says it is."""
        return None if self._process.pid is None else activity(self._process.pid)

    def reading(self, files: Sequence[str]) -> str | None:
        """Which of these files it has open."""
        return None if self._process.pid is None else open_file(self._process.pid, files)

    def gone(self) -> bool:
        """Whether it has ended."""
        return not self._process.is_alive()

    def how_it_ended(self) -> str:
        """For messages."""
        self._process.join(_LEAVE_S)
        return _how(self._process.exitcode)

    def close(self) -> None:
        """It has left, or is killed."""
        self.dismiss()
        self._process.join(_LEAVE_S)
        if self._process.is_alive():
            self._process.kill()
        if self._listener is not threading.current_thread():
            self._listener.join(IDLE_S)

    def dismiss(self) -> None:
        """It may leave; returns at once."""
        self._wanted.close()


_CAUSES = {
    signal.SIGKILL: ", as the kernel does where memory is short",
    signal.SIGBUS: ", as happens where /dev/shm is full",
}


def _how(code: int | None) -> str:
    if code is None or code >= 0:
        return f"has ended by itself (exit code {code})"
    try:
        number = signal.Signals(-code)
    except ValueError:
        return f"was killed (signal {-code})"
    return f"was killed ({number.name}{_CAUSES.get(number, '')})"


def _load_in_process(steps: Steps[T], wanted: Connection, done: Connection) -> None:
    torch.set_num_threads(1)  # it counts as one core
    leave_with_parent()
    sender = Sender(STEPS_AHEAD)
    with rooms_from(sender.room):
        while True:
            try:
                number = wanted.recv()
            except (EOFError, OSError):
                return  # nobody wants more
            sender.begin()
            try:
                item: Any = steps[number]
            except BaseException as error:
                item = LoadingFailure(error)
            try:
                _hand_over(item, sender, done)
            except (BrokenPipeError, ConnectionResetError):
                return


def _hand_over(item: Any, sender: Sender, pipe: Connection) -> None:
    """Pictures lie in shared memory; where that is full, they go through the pipe itself."""
    try:
        message = sender.packed(item)
    except (RuntimeError, OSError) as error:
        message = pickle.dumps((item, f"{error}"), pickle.HIGHEST_PROTOCOL)
    except BaseException as error:
        message = pickle.dumps((LoadingFailure(error), None))
    pipe.send_bytes(message)


def _listen(pipe: Connection, done: "queue.SimpleQueue[Any]", room: Room | None = None) -> None:
    """Until the other end closes. The pipe is this thread's to close."""
    told = False
    receiver = Receiver(room)
    with pipe:
        while True:
            try:
                item, problem = receiver.take(pipe)
            except BaseException as error:
                ended = isinstance(error, EOFError | ConnectionError | FileNotFoundError)
                done.put(None if ended else LoadingFailure(error))
                return
            if problem is not None and not told:
                told = True
                _say_once(problem)
            done.put(item)


_said = threading.Lock()


def _say_once(problem: str) -> None:
    if _said.acquire(blocking=False):  # never let go: once a process
        LOGGER.warning(
            f"warning: loader processes find no room in shared memory ({problem.strip()}); they "
            "hand pictures over through a pipe, which is slower. Make room in /dev/shm, or load "
            "in the training process with data.workers=0"
        )
