"""Loader processes that are safe beside MPI.

Forking a process in which MPI or InfiniBand is up can crash it or corrupt its memory, so workers
come from a fork server: a fresh interpreter that never started MPI. They must not start it by
accident either. Python re-imports the main program in every such process, and a main program
that imports mpi4py would call MPI_Init there; workers are therefore given an empty main module.

A batch system sends its signals to every process of a step. Workers and their server hold them
back, SIGTERM too, so that the training process can end in order; in turn it ends workers that
don't leave by SIGKILL, and a worker watches whether the training process is still there.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, popen_forkserver, resource_tracker, util
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

LONGEST_TEMPORARY_FOLDER = 70
"""Bytes: a socket's address has 107, of which multiprocessing's own names take 33."""
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
_HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class _Popen(popen_forkserver.Popen):
    """The handle of a worker, which does not hear SIGTERM."""

    def terminate(self) -> None:
        """End it; Python does so at exit with those that are left."""
        self.kill()


class _Worker(ForkServerProcess):
    """A loader process."""

    @staticmethod
    def _Popen(process_obj: Any) -> _Popen:
        return _Popen(process_obj)


class _Workers(ForkServerContext):
    """The fork server's context, whose processes are workers."""

    Process = _Worker


def fork_server() -> Any:
    """The multiprocessing context that workers start from; starts nothing."""
    _keep_addresses_short()
    context = _Workers()
    context.set_forkserver_preload(["megdet_hvd.data.loader"])
    return context


def _keep_addresses_short() -> None:
    """Have multiprocessing keep its sockets in a folder whose name fits a socket's address.

    They lie below TMPDIR, for which batch systems make long names. It asks once a process, and
    hands the answer down to workers.
    """
    usual = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) <= LONGEST_TEMPORARY_FOLDER:
        return
    for folder in _SHORT_FOLDERS:
        if os.access(folder, os.W_OK | os.X_OK):
            tempfile.tempdir = folder
            try:
                with suppress(OSError):
                    util.get_temp_dir()  # one of our own in there, closed to others
                    return
            finally:
                tempfile.tempdir = usual


@contextmanager
def starting_workers() -> Iterator[None]:
    """Around the start of workers: they see no main program, and no signals meant for it.

    Ctrl-C and the signals of schedulers (TERM, USR1, USR2) go to every process of a job; they are
    for the training process, which ends its workers itself. The mask is inherited.
    """
    # Its start lets SIGINT and SIGTERM through again, so it must be over.
    resource_tracker.ensure_running()
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        sys.modules["__main__"] = main


def start_server() -> None:
    """Start the server now, where it does not run; it imports what workers need by itself.

    Raises:
        OSError: it can't be started.
    """
    fork_server()
    with starting_workers():
        forkserver.ensure_running()


def server_process() -> int | None:
    """The server's process; None: none was started."""
    found: int | None = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return found


def leave_with_parent() -> None:
    """Called in a worker: it does not outlive the training process."""
    threading.Thread(target=_wait_for_parent, name="parent", daemon=True).start()


def _wait_for_parent() -> None:
    # torch looks whether the fork server lives; that lives as long as any worker does.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
