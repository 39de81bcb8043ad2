"""Loaders are started, without waiting for ever for the server that starts their processes."""

import logging
import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeVar

from megdet_hvd.data.activity import Idleness, activity
from megdet_hvd.data.loader_process import LoaderProcess
from megdet_hvd.data.loader_thread import LoaderThread
from megdet_hvd.data.room import Room
from megdet_hvd.data.step_loader import IDLE_S, LOOK_S, StepLoader, Steps
from megdet_hvd.data.workers import server_process, starting_workers
from megdet_hvd.errors import RunError, StorageError

T = TypeVar("T")

STORAGE_LIMITS = 5
"""Limits that a loader may do nothing at all before the wait ends: a file server that is started
again takes minutes. One that is stopped by a signal is given a single limit."""

LOGGER = logging.getLogger("megdet_hvd")


def start_loaders(
    steps: Steps[T], workers: int, room: Room | None, limit_s: float
) -> list[StepLoader[T]]:
    """So many processes, or a thread where there are to be none, or none can be started.

    Raises:
        RunError, StorageError: their server does nothing, see :func:`load_ahead`.
    """
    started: list[StepLoader[T]] = []
    try:
        if workers:
            least = max(limit_s, IDLE_S) if limit_s else 0.0  # for a server to be given a turn
            _start_processes(steps, workers, room, least, started)
    except (OSError, EOFError) as error:
        LOGGER.warning(
            f"warning: loader processes can't be started ({error or type(error).__name__}); "
            f"{f'{len(started)} of {workers} load' if started else 'a thread loads'} the pictures"
        )
    return started or [LoaderThread(steps, room)]


def _start_processes(
    steps: Steps[T],
    workers: int,
    room: Room | None,
    limit_s: float,
    started: list[StepLoader[T]],
) -> None:
    """Each is asked of their server, which may stand before storage or be stopped: by a thread."""
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    given_up = threading.Event()

    def start() -> None:
        error: BaseException | None = None
        try:
            with starting_workers():
                while len(started) < workers and not given_up.is_set():
                    started.append(LoaderProcess(steps, room))
        except BaseException as raised:
            error = raised
        if given_up.is_set():
            close_loaders(started)
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
    idle = Idleness(LOOK_S)
    while True:
        with suppress(queue.Empty):
            return ended.get(timeout=LOOK_S)
        server = server_process()
        now = None if server is None else activity(server)
        idle_s = idle.seconds(now, time.monotonic())
        stopped = now is not None and now.stopped
        if 0 < limit_s * (1 if stopped else STORAGE_LIMITS) <= idle_s:
            who = f"the server of the loader processes, process {server},"
            raise stuck_error(who, "them to start", idle_s, stopped, limit_s)


def close_loaders(loaders: Sequence[StepLoader[Any]]) -> None:
    """All are told to leave before any is waited for."""
    for loader in loaders:
        loader.dismiss()
    for loader in loaders:
        loader.close()


def stuck_error(
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
