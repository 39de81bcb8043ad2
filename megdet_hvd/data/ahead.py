"""Steps loaded ahead of training, by processes or by one thread; nobody waits for ever.

torch's DataLoader drops a batch whose tensors find no shared memory: the error is shown by a
helper thread, and training waits without end. Here all that can fail does so where it can be
answered. A worker hands over its pictures by itself, through a pipe where shared memory is full;
its error becomes the caller's; one that dies is named at once; and one that gets nowhere, as the
kernel counts its work, ends the wait.
"""

import logging
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
import traceback
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from multiprocessing.connection import Connection
from typing import Any, Generic, Protocol, TypeVar

import torch
import torch.multiprocessing  # teaches pickle to hand tensors over in shared memory

from megdet_hvd.data.activity import Activity, Idleness, activity, open_file
from megdet_hvd.data.room import Room, rooms_from
from megdet_hvd.data.shared_memory import Receiver, Sender
from megdet_hvd.data.worker_count import STEPS_AHEAD
from megdet_hvd.data.workers import (
    fork_server,
    leave_with_parent,
    server_process,
    starting_workers,
)
from megdet_hvd.errors import RunError, StorageError, UserError
from megdet_hvd.wording import first_of

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

STORAGE_LIMITS = 5
"""Limits that a loader may do nothing at all before the wait ends: a file server that is started
again takes minutes. One that is stopped by a signal is given a single limit."""
_LOOK_S = 1.0
"""How often the wait looks at the loader."""
_LEAVE_S = 1.0
"""For a worker to leave when it is told to; then it is killed."""
_IDLE_S, _FINISH_S = 2.0, 30.0
"""A thread that does nothing, and one that works, is waited for so long at the end: Python cuts off
those left over, in the middle of what they do, and within torch's code that ends the process."""
_SHOWN = 3
_OWN_ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (UserError, RunError, StorageError)
}

LOGGER = logging.getLogger("megdet_hvd")


class Steps(Protocol[T_co]):
    """What is loaded, by number."""

    def __getitem__(self, number: int) -> T_co:
        """Load one step."""

    def files(self, number: int) -> Sequence[str]:
        """The pictures of a step, to name them."""


class _Failure:
    """An error of whoever loads, on its way to whoever waits."""

    def __init__(self, error: BaseException) -> None:
        self.kind, self.text = type(error).__name__, str(error)
        self.trace = "".join(traceback.format_exception(error))

    def as_error(self, who: str) -> Exception:
        """What to raise."""
        if self.kind in _OWN_ERRORS:
            return _OWN_ERRORS[self.kind](self.text)
        error = MemoryError if self.kind == "MemoryError" else RuntimeError
        return error(f"{who} failed: {self.kind}: {self.text}\n{self.trace}")


class _LoaderProcess(ABC, Generic[T]):
    """Somebody who loads the steps that it is asked for, one after another."""

    def __init__(self) -> None:
        self.done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        """What was loaded, in the order asked for; a _Failure; or None: nothing more will come."""

    @property
    @abstractmethod
    def who(self) -> str:
        """For messages."""

    @abstractmethod
    def ask(self, number: int) -> None:
        """Want a step; returns at once."""

    @abstractmethod
    def activity(self) -> Activity | None:
        """How far it is; None: it can't be told."""

    @abstractmethod
    def reading(self, files: Sequence[str]) -> str | None:
        """Which of these files it has open, where that can be told."""

    @abstractmethod
    def gone(self) -> bool:
        """Whether it has ended."""

    @abstractmethod
    def how_it_ended(self) -> str:
        """Of one that will bring nothing more."""

    @abstractmethod
    def dismiss(self) -> None:
        """It may leave; returns at once."""

    @abstractmethod
    def close(self) -> None:
        """It has left, or is ended."""


class _Thread(_LoaderProcess[T]):
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
        self._wanted.put(number)

    def activity(self) -> Activity | None:
        thread = self._thread.native_id
        return None if thread is None else activity(os.getpid(), thread)

    def reading(self, files: Sequence[str]) -> str | None:
        del files
        return None

    def gone(self) -> bool:
        return not self._thread.is_alive()

    def how_it_ended(self) -> str:
        return "has ended"

    def dismiss(self) -> None:
        self._leave.set()
        self._wanted.put(None)

    def close(self) -> None:
        """It ends by itself, after what it is at; it may stand before a file server for longer."""
        if self._thread is threading.current_thread():
            return  # garbage is collected wherever it is found
        idle, end = Idleness(_LOOK_S), time.monotonic() + _FINISH_S
        while self._thread.is_alive() and time.monotonic() < end:
            self._thread.join(_LOOK_S)
            if idle.seconds(self.activity(), time.monotonic()) >= _IDLE_S:
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
                done.put(_Failure(error))


class _Process(_LoaderProcess[T]):
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
        return f"the loader process {self._process.pid}"

    def ask(self, number: int) -> None:
        with suppress(OSError):  # it is gone; whoever takes a step is told
            self._wanted.send(number)

    def activity(self) -> Activity | None:
        return None if self._process.pid is None else activity(self._process.pid)

    def reading(self, files: Sequence[str]) -> str | None:
        return None if self._process.pid is None else open_file(self._process.pid, files)

    def gone(self) -> bool:
        return not self._process.is_alive()

    def how_it_ended(self) -> str:
        self._process.join(_LEAVE_S)
        return _how(self._process.exitcode)

    def close(self) -> None:
        self.dismiss()
        self._process.join(_LEAVE_S)
        if self._process.is_alive():
            self._process.kill()
        if self._listener is not threading.current_thread():
            self._listener.join(_IDLE_S)

    def dismiss(self) -> None:
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
                item = _Failure(error)
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
        message = pickle.dumps((_Failure(error), None))
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
                done.put(None if ended else _Failure(error))
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


class Ahead(Iterator[T]):
    """Steps in order, loaded ahead."""

    def __init__(
        self,
        steps: Steps[T],
        numbers: Sequence[int],
        workers: int,
        limit_s: float,
        room: Room | None = None,
    ) -> None:
        """See :func:`load_ahead`."""
        self._steps, self._numbers, self._limit_s = steps, numbers, limit_s
        self._loaders = _start(steps, min(workers, len(numbers)), room, limit_s)
        self._asked = self._taken = 0
        self._finalizer = weakref.finalize(self, _close_all, self._loaders)
        self._ask()

    def close(self) -> None:
        """Let the loaders go. What was loaded and not taken is lost; no more steps come."""
        self._taken = len(self._numbers)
        self._finalizer()

    def __next__(self) -> T:
        if self._taken == len(self._numbers):
            self.close()
            raise StopIteration
        self._ask()
        loader = self._loaders[self._taken % len(self._loaders)]
        try:
            item = self._take(loader, self._numbers[self._taken])
        except BaseException:
            self.close()
            raise
        self._taken += 1
        return item

    def _ask(self) -> None:
        end = min(self._taken + STEPS_AHEAD * len(self._loaders), len(self._numbers))
        while self._asked < end:
            self._loaders[self._asked % len(self._loaders)].ask(self._numbers[self._asked])
            self._asked += 1

    def _take(self, loader: _LoaderProcess[T], number: int) -> T:
        idle, warned = Idleness(_LOOK_S), False
        while True:
            try:
                item = loader.done.get(timeout=_LOOK_S)
            except queue.Empty:
                now = loader.activity()
                if now is None and loader.gone() and loader.done.empty():
                    loader.done.put(None)
                    continue
                idle_s = idle.seconds(now, time.monotonic())
                stopped = now is not None and now.stopped
                if 0 < self._limit_s * (1 if stopped else STORAGE_LIMITS) <= idle_s:
                    raise self._stuck(loader, number, idle_s, stopped) from None
                if idle_s < self._limit_s:
                    warned = False
                elif self._limit_s > 0 and not warned:
                    warned = True
                    LOGGER.warning(f"warning: {self._stuck(loader, number, idle_s, stopped)}")
                continue
            if item is None:
                raise RunError(
                    f"{loader.who} {loader.how_it_ended()}, before {self._named(number)} came; "
                    "give the job more memory, or use fewer loader processes (data.workers)"
                )
            if isinstance(item, _Failure):
                raise item.as_error(loader.who)
            found: T = item
            return found

    def _stuck(
        self, loader: _LoaderProcess[T], number: int, idle_s: float, stopped: bool
    ) -> RunError | StorageError:
        """What to say of a loader that does nothing."""
        where = f"{self._named(number)} to load"
        if not stopped and (file := loader.reading(self._steps.files(number))) is not None:
            where = f"{file} open"
        return _stuck(loader.who, where, idle_s, stopped, self._limit_s)

    def _named(self, number: int) -> str:
        files = self._steps.files(number)
        return first_of(files, _SHOWN) if files else "no pictures"


def _stuck(
    who: str, where: str, idle_s: float, stopped: bool, limit_s: float
) -> RunError | StorageError:
    """What to say of a process that is waited for and does nothing."""
    if stopped:
        return RunError(
            f"{who} is stopped (by SIGSTOP, or a debugger), and has been "
            f"waited for for {idle_s:.0f} s; let it go on with SIGCONT, or start again"
        )
    return StorageError(
        f"{who} has done nothing for {idle_s:.0f} s, with {where}: does the storage "
        f"answer? (the wait ends after {STORAGE_LIMITS} × watchdog.seconds={limit_s:g})"
    )


def _start(
    steps: Steps[T], workers: int, room: Room | None, limit_s: float
) -> list[_LoaderProcess[T]]:
    """So many processes, or a thread where there are to be none, or none can be started.

    Raises:
        RunError, StorageError: their server does nothing, see :func:`load_ahead`.
    """
    started: list[_LoaderProcess[T]] = []
    try:
        if workers:
            least = max(limit_s, _IDLE_S) if limit_s else 0.0  # for a server to be given a turn
            _start_processes(steps, workers, room, least, started)
    except (OSError, EOFError) as error:
        LOGGER.warning(
            f"warning: loader processes can't be started ({error or type(error).__name__}); "
            f"{f'{len(started)} of {workers} load' if started else 'a thread loads'} the pictures"
        )
    return started or [_Thread(steps, room)]


def _start_processes(
    steps: Steps[T],
    workers: int,
    room: Room | None,
    limit_s: float,
    started: list[_LoaderProcess[T]],
) -> None:
    """Each is asked of their server, which may stand before storage or be stopped: by a thread."""
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    given_up = threading.Event()

    def start() -> None:
        error: BaseException | None = None
        try:
            with starting_workers():
                while len(started) < workers and not given_up.is_set():
                    started.append(_Process(steps, room))
        except BaseException as raised:
            error = raised
        if given_up.is_set():
            _close_all(started)
        ended.put(error)

    threading.Thread(target=start, name="loader start", daemon=True).start()
    try:
        error = _answer(ended, limit_s)
    except BaseException:
        given_up.set()
        raise
    if error is not None:
        raise error


def _answer(
    ended: "queue.SimpleQueue[BaseException | None]", limit_s: float
) -> BaseException | None:
    """What came of starting processes; raises what is to be said of a server that does nothing."""
    idle = Idleness(_LOOK_S)
    while True:
        with suppress(queue.Empty):
            return ended.get(timeout=_LOOK_S)
        server = server_process()
        now = None if server is None else activity(server)
        idle_s = idle.seconds(now, time.monotonic())
        stopped = now is not None and now.stopped
        if 0 < limit_s * (1 if stopped else STORAGE_LIMITS) <= idle_s:
            who = f"the server of the loader processes, process {server},"
            raise _stuck(who, "them to start", idle_s, stopped, limit_s)


def _close_all(loaders: Sequence[_LoaderProcess[Any]]) -> None:
    for loader in loaders:
        loader.dismiss()
    for loader in loaders:
        loader.close()


def load_ahead(
    steps: Steps[T],
    numbers: Sequence[int],
    workers: int,
    limit_s: float = 0.0,
    room: Room | None = None,
) -> Iterator[T]:
    """The steps of these numbers, in order, each loaded before it is asked for.

    Args:
        steps: what is loaded; picklable where there are workers.
        numbers: which, in order.
        workers: loader processes; 0, or where none can be started: a thread of this process.
        limit_s: ``watchdog.seconds``: so long a loader may be stopped, and STORAGE_LIMITS times
            so long it may do nothing, while its step is waited for; 0: for ever.
        room: gives the memory that pictures are to lie in, called in a thread of this process;
            None: plain memory.

    Raises:
        RunError: (in the iterator) a worker has died or is stopped; names it and its pictures.
        StorageError: it does nothing; names the file.
        Exception: whatever loading raises.
    """
    return Ahead(steps, numbers, workers, limit_s, room) if numbers else iter(())
