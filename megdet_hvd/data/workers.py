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
import shutil
import signal
import sys
import tempfile
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import popen_forkserver, resource_tracker, util
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any, Literal

import torch

MAX_AUTO_WORKERS = 4
STEPS_AHEAD = 2
"""Steps that each worker loads ahead."""
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


def worker_count(
    setting: int | Literal["auto"],
    *,
    cores: int,
    local_size: int,
    step_bytes: int = 0,
    shared_bytes: int | None = None,
) -> int:
    """Loader processes for this rank.

    ``auto`` leaves one core of the rank's share to training: the share less one, at most 4, and
    0 (load in a thread of the training process) where the share is a single core.

    Args:
        setting: the configured number, or "auto".
        cores: cores this process may run on (``len(os.sched_getaffinity(0))``).
        local_size: ranks of this machine. A launcher that binds ranks to cores has divided them
            already; give 1 then.
        step_bytes: what one step's pictures take in shared memory, through which workers hand
            them over; each keeps `STEPS_AHEAD` of them there, and one more while one grows.
        shared_bytes: shared memory of the machine; containers often have only 64 MB, and a
            worker that finds it full is killed. None: enough.
    """
    if setting != "auto":
        return setting
    share = max(local_size, 1)
    count = min(MAX_AUTO_WORKERS, cores // share - 1)
    if shared_bytes is not None and step_bytes > 0:
        count = min(count, shared_bytes // share // (step_bytes * (STEPS_AHEAD + 1)))
    return max(0, count)


def shared_memory_bytes() -> int | None:
    """Free shared memory of this machine; None where that can't be told."""
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:
        return None


def fork_server() -> Any:
    """The multiprocessing context that workers start from."""
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


def one_thread(worker_id: int) -> None:
    """Start-up of a worker: it counts as one core, and does not outlive the training process."""
    del worker_id
    torch.set_num_threads(1)
    threading.Thread(target=_leave_with_parent, name="parent", daemon=True).start()


def _leave_with_parent() -> None:
    # torch looks whether the fork server lives; that lives as long as any worker does.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
