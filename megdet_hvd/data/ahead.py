"""Steps loaded ahead of training, by processes or by one thread; nobody waits for ever.

torch's DataLoader drops a batch whose tensors find no shared memory: the error is shown by a
helper thread, and training waits without end. Here all that can fail does so where it can be
answered: a worker's error becomes the caller's, one that dies is named at once, and one that gets
nowhere, as the kernel counts its work, ends the wait.
"""

import logging
import queue
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import TypeVar

from megdet_hvd.data.activity import Idleness
from megdet_hvd.data.loader_start import STORAGE_LIMITS, close_loaders, start_loaders, stuck_error
from megdet_hvd.data.room import Room
from megdet_hvd.data.step_loader import LOOK_S, LoadingFailure, StepLoader, Steps
from megdet_hvd.data.worker_count import STEPS_AHEAD
from megdet_hvd.errors import RunError, StorageError
from megdet_hvd.wording import first_of

T = TypeVar("T")

_SHOWN = 3

LOGGER = logging.getLogger("megdet_hvd")


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
        self._loaders = start_loaders(steps, min(workers, len(numbers)), room, limit_s)
        self._asked = self._taken = 0
        self._finalizer = weakref.finalize(self, close_loaders, self._loaders)
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

    def _take(self, loader: StepLoader[T], number: int) -> T:
        idle, warned = Idleness(LOOK_S), False
        while True:
            try:
                item = loader.done.get(timeout=LOOK_S)
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
            if isinstance(item, LoadingFailure):
                raise item.as_error(loader.who)
            found: T = item
            return found

    def _stuck(
        self, loader: StepLoader[T], number: int, idle_s: float, stopped: bool
    ) -> RunError | StorageError:
        """What to say of a loader that does nothing."""
        where = f"{self._named(number)} to load"
        if not stopped and (file := loader.reading(self._steps.files(number))) is not None:
            where = f"{file} open"
        return stuck_error(loader.who, where, idle_s, stopped, self._limit_s)

    def _named(self, number: int) -> str:
        files = self._steps.files(number)
        return first_of(files, _SHOWN) if files else "no pictures"


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
