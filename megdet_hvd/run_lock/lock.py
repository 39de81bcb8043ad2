"""Holding a run folder.

Three files in it, which go when the folder is let go in order:

``.lock.owner``  the record: who holds it, and a heartbeat every few seconds
``.lock``        held by ``flock`` while the process lives, where the file system has locks
``.lock.guard``  there for the instant in which the folder changes hands: made exclusively, which
                 network file systems do even where they have no locks

A process that has the folder and is gone does not keep it. Surest first: its lock has ended, or its
process, on this very machine; it was an earlier start of our own Slurm job; Slurm says that its job
has ended; its heartbeat has stood still for longer than a lease, by the clock of who waits, so that
no two clocks are compared. An owner who only seemed gone (it was stopped, or its machine comes
back) finds another record in its place, and must write no more.
"""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from filelock import BaseFileLock, SoftFileLease, Timeout, UnixFileLock

from megdet_hvd.errors import RunError, StorageError, UserError
from megdet_hvd.run_lock import slurm
from megdet_hvd.run_lock.owner import (
    BEAT_BYTES,
    Owner,
    OwnerRecord,
    beat_line,
    on_this_machine,
    own_identity,
    process_runs,
    read_record,
    record_text,
)
from megdet_hvd.storage import retried, temporary_beside

LOCK, RECORD, GUARD = ".lock", ".lock.owner", ".lock.guard"

BEAT_S = 5.0
"""Between two heartbeats."""
LEASE_S = 90.0
"""A heartbeat that stands still for longer is that of a machine that is gone: as long as NFS keeps
the locks of a client that it does not hear."""
_LOOK_S = 1.0
"""Between two looks at somebody else's heartbeat."""
_HANGS_S = 10.0
"""For a heartbeat under way to end."""
_ASK_EVERY_S = 30.0
"""Between two questions to Slurm."""
_GUARD_LEASE_S, _GUARD_WAIT_S = 15.0, 40.0
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
"""What ``flock`` says on a file system without locks."""


class _Heartbeat:
    """Somebody else's, as it is seen from here: time counts only where looks follow each other."""

    def __init__(self) -> None:
        self.text, self.still_s = "", 0.0
        self.moved = False
        self._looked: float | None = None

    def look(self, text: str, now: float, at_most_s: float) -> None:
        """A record's ``text`` was read. ``at_most_s``: a longer time since the last look is none.

        A storage that answered nobody for minutes must not make a heartbeat stand still.
        """
        if self._looked is None or text.partition("\n")[0] != self.text.partition("\n")[0]:
            self.still_s, self.moved = 0.0, False  # the first look, or another owner
        elif text != self.text:
            self.still_s, self.moved = 0.0, True
        else:
            self.still_s += min(now - self._looked, at_most_s)
        self.text, self._looked = text, now


class RunLock:
    """A run folder held by this process. Made by :func:`take`."""

    def __init__(self, folder: Path, owner: Owner, native: BaseFileLock | None, file: int) -> None:
        self.folder, self.owner = folder, owner
        self._native, self._file = native, file
        self._pid = os.getpid()
        self._lost: str | None = None
        self._sure_at = _clock()
        self._number = 0
        self._beating = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="run lock", daemon=True)

    def check(self) -> None:
        """Before anything is written: is the folder still ours? Costs nothing but now and then.

        Raises:
            RunError: another process has taken it over, or its record is gone.
        """
        # Nobody takes over before a lease has passed since the last heartbeat.
        if self._lost is None and _clock() - self._sure_at > LEASE_S / 3:
            self._beat()
        if self._lost is not None:
            raise RunError(
                f"{self.folder}: {self._lost}. This process was taken for gone (was it stopped, or "
                "its machine cut off?) and writes nothing more"
            )

    def release(self) -> None:
        """Let the folder go. Does nothing in a forked child, nor a second time."""
        if os.getpid() != self._pid or self._end.is_set():
            return
        self._end.set()
        self._thread.join(_HANGS_S)
        try:
            with suppress(OSError, StorageError), _guarded(self.folder):
                found = read_record(self.folder / RECORD)
                if found is not None and found.owner == self.owner:
                    (self.folder / RECORD).unlink()
                    if self._native is not None:
                        (self.folder / LOCK).unlink()
        finally:
            if not self._thread.is_alive():  # one that hangs in a dead storage still has the file
                os.close(self._file)
            if self._native is not None:
                self._native.release()

    def start(self) -> "RunLock":
        """Begin the heartbeat."""
        self._thread.start()
        return self

    def _beat_on(self) -> None:
        while not self._end.wait(BEAT_S) and self._lost is None:
            self._beat()

    def _beat(self) -> None:
        with self._beating:
            began, written = _clock(), True
            self._number += 1
            try:
                # To the file itself: after a takeover it is not the one of that name any more.
                size = os.fstat(self._file).st_size
                os.pwrite(self._file, beat_line(self._number).encode(), size - BEAT_BYTES)
                os.fdatasync(self._file)
            except OSError:
                written = False  # the next one may go better
            try:
                found = read_record(self.folder / RECORD)
            except OSError:
                return
            if found is None:
                self._lost = (
                    f"the record of who works in this run ({RECORD}) is gone: the folder was moved "
                    "or cleared away, or another process came and went"
                )
            elif found.owner != self.owner:
                self._lost = f"{found} has taken over this run"
            elif written:
                self._sure_at = began


def take(
    folder: Path,
    *,
    say: Callable[[str], None],
    waiting: Callable[[], None] = lambda: None,
    environ: Mapping[str, str] = os.environ,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> RunLock:
    """Hold ``folder``, which must be there, against all other processes on all machines.

    Args:
        folder: the run folder.
        say: told what one has to wait for, and of a takeover.
        waiting: called now and then while it waits.
        environ: for Slurm's variables.
        clock: seconds, for the waiting.
        pause: sleeps so many of them.

    Raises:
        UserError: another process works in it, which is named.
        StorageError: it can't be said whether that one is still there, or storage fails.
        OSError: the folder can't be written.
    """
    return _Taking(folder, own_identity(environ), say, waiting, clock, pause).run()


class _Taking:
    """One attempt."""

    def __init__(
        self,
        folder: Path,
        own: Owner,
        say: Callable[[str], None],
        waiting: Callable[[], None],
        clock: Callable[[], float],
        pause: Callable[[float], None],
    ) -> None:
        self.folder, self.own = folder, own
        self._say, self._waiting, self._clock, self._pause = say, waiting, clock, pause
        self._heart = _Heartbeat()
        self._gone: str | None = None
        """The text of a record whose owner is known to be gone."""
        self._told = False
        self._state: slurm.JobState | None = None
        self._asked_at: float | None = None

    def run(self) -> RunLock:
        while True:
            found = retried(lambda: read_record(self.folder / RECORD))
            if found is None or self._worth_trying(found):
                lock = self._try()
                if lock is not None:
                    return lock
            self._waiting()
            if found is None:
                continue
            if not self._told and self._heart.still_s > 2 * BEAT_S:
                self._told = True
                self._say(
                    f"{self.folder}: {found} has this run, and gives no sign; waiting up to "
                    f"{LEASE_S:.0f} s for one"
                )
            self._pause(_LOOK_S)

    def _worth_trying(self, found: OwnerRecord) -> bool:
        """Whether the owner is gone, or that is to be seen by an attempt.

        Raises:
            UserError: it is there.
        """
        owner = found.owner
        if owner is not None and process_runs(owner, self.own):
            self._refuse(found)
        answered = owner is None or self._ask_slurm(found, owner)
        self._heart.look(found.text, self._clock(), 2 * _LOOK_S)
        if self._gone == found.text:
            return True
        if self._heart.moved:
            self._refuse(found)
        if self._heart.still_s > LEASE_S:
            if not answered:
                raise StorageError(
                    f"{self.folder}: {found} has this run and gives no sign, and Slurm does not "
                    "say whether its job has ended; start again once Slurm answers"
                )
            self._say(
                f"{self.folder}: {found} had this run; its heartbeat has stood still for "
                f"{self._heart.still_s:.0f} s, so it is taken for gone, and the run is taken over"
            )
            self._gone = found.text
            return True
        return owner is not None and on_this_machine(owner, self.own)

    def _ask_slurm(self, found: OwnerRecord, owner: Owner) -> bool:
        """Note it where Slurm knows that the owner is gone; False: it ought to know, and is silent.

        Raises:
            UserError: it is there for sure.
        """
        if owner.job is None:
            return True
        here = self.own.cluster or slurm.cluster_here()
        if owner.cluster and here and owner.cluster != here:
            return True
        if owner.job == self.own.job:
            if owner.restart < self.own.restart:
                self._gone = found.text
            elif owner.restart > self.own.restart:
                self._refuse(found)
            return True
        if not slurm.has_slurm():  # in a container, say
            return True
        if self._asked_at is None or self._clock() - self._asked_at > _ASK_EVERY_S:
            self._state = slurm.job_state(owner.job)
            self._asked_at = self._clock()
        if self._state is None:
            return False
        if self._state.has_left(owner.restart, owner.uid):
            self._gone = found.text
        elif self._state.name == "SUSPENDED":
            self._refuse(found)
        return True

    def _refuse(self, found: OwnerRecord) -> NoReturn:
        owner = found.owner
        if owner is None:
            how = "stop it"
        elif owner.job is not None:
            how = f"stop it: scancel --batch --signal=USR2 {owner.slurm_id}"
        else:
            how = f"stop it: kill {owner.pid} on {owner.host}"
        raise UserError(
            f"{self.folder}: {found} works in this run, and two would spoil it. Wait for its end, "
            f"or {how}"
        )

    def _try(self) -> RunLock | None:
        """Take the folder, where nobody has it or its owner is gone."""
        with _guarded(self.folder):
            found = read_record(self.folder / RECORD)
            native, here = _try_native(self.folder)
            try:
                free = found is None or found.text == self._gone
                if not free and not self._has_ended_here(found, native is not None):
                    if native is not None:
                        native.release()
                    return None
                if native is None and here:
                    native = self._replace_native()
                owner = replace(self.own, since=time.time(), native=native is not None)
                return RunLock(self.folder, owner, native, self._write(owner)).start()
            except BaseException:
                if native is not None:
                    native.release()
                raise

    def _has_ended_here(self, found: OwnerRecord | None, locked: bool) -> bool:
        """Whether an owner on this machine has ended: its process, or else the lock it had.

        ``locked``: that lock is ours now.
        """
        owner = None if found is None else found.owner
        if owner is None or not on_this_machine(owner, self.own):
            return False
        runs = process_runs(owner, self.own)
        return owner.native and locked if runs is None else not runs

    def _replace_native(self) -> BaseFileLock | None:
        """A lock of our own in the place of one that somebody gone still holds; None: no locks."""
        path = self.folder / LOCK
        fresh = temporary_beside(path)
        fresh.touch()
        os.replace(fresh, path)
        return _try_native(self.folder)[0]

    def _write(self, owner: Owner) -> int:
        """The record, whole or not at all; returns its open file."""
        path = self.folder / RECORD
        temporary = temporary_beside(path)
        file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.write(file, record_text(owner).encode())
            os.fsync(file)
            os.replace(temporary, path)
        except BaseException:
            os.close(file)
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        return file


def _try_native(folder: Path) -> tuple[BaseFileLock | None, bool]:
    """The file system's own lock, where it is free, and whether there are any. Under the guard."""
    lock = UnixFileLock(folder / LOCK, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        return None, True
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None, False
    return lock, True


@contextmanager
def _guarded(folder: Path) -> Iterator[None]:
    """Nobody else takes, or lets go, the folder meanwhile. For instants.

    Raises:
        StorageError: somebody else does not end.
        OSError: the folder can't be written.
    """
    guard = SoftFileLease(
        folder / GUARD, lease_duration=_GUARD_LEASE_S, timeout=_GUARD_WAIT_S, thread_local=False
    )
    try:
        guard.acquire()
    except Timeout:
        raise StorageError(
            f"{folder / GUARD}: another process has been changing this run's lock for "
            f"{_GUARD_WAIT_S:.0f} s; start again, or remove this file if no process works here"
        ) from None
    try:
        yield
    finally:
        guard.release()


def _clock() -> float:
    """Seconds, those that the machine slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
