"""The run folder is held for the life of a run's rank 0: no two runs write into one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from megdet_hvd.checkpoint.retention import clear_leftovers
from megdet_hvd.comm.position import go_outside
from megdet_hvd.engine.run_folder.folder import cannot_make
from megdet_hvd.job.agree import together
from megdet_hvd.job.log import LOGGER
from megdet_hvd.job.world import World
from megdet_hvd.run_lock.lock import RunLock, take


@contextmanager
def holding(path: Path, world: World) -> Iterator[RunLock | None]:
    """Hold the run folder ``path``, which is made where missing. Every process calls it together.

    What writers that were killed left half written is cleared away, and a folder made here that
    is empty in the end, since nothing came to be written. On ranks other than 0: None.

    Raises:
        UserError: on all ranks alike: another process works in it, or it can't be written.
        StorageError: so, where storage fails, or nobody can say whether that process still lives.
    """
    lock: RunLock | None = None
    made = False
    with together(world, "run lock"):
        if world.is_main:
            made = not os.path.lexists(path)
            lock = _take(path)
    try:
        yield lock
    finally:
        if lock is not None:
            lock.release()
        if made:
            with suppress(OSError):  # mostly: it is not empty
                path.rmdir()


def _take(path: Path) -> RunLock:
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = take(
            path,
            say=lambda text: LOGGER.warning(f"warning: {text}"),
            waiting=lambda: go_outside("waiting for the run folder"),
        )
    except OSError as error:
        raise cannot_make(path, error) from None
    try:
        clear_leftovers(path)
    except OSError as error:
        lock.release()
        raise cannot_make(path, error) from None
    return lock
