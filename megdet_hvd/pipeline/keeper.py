"""Keeps an evaluator's place in the job, so that its death does not take the trainers along.

MPI's launchers end a job whose process dies. So the process that the launcher started for an
evaluator only waits; a child of it is the rank. Where the child dies (killed for its memory, a
crash in a library) the launcher sees nothing of it, and the trainers find out by the watchdog, or
by a file that the keeper lays.
Under ``srun`` Slurm's PMIx ends the step once a rank's connection to it is lost; so the keeper
holds that open file, too, as long as the place is kept (:func:`connections_to_pmix`).
The place is given up once rank 0 says that training has ended, by a file, since a process that
is no longer part of MPI can be told in no other way; a child that waits for a dead one still is
killed then. *Measured here* with Open MPI 4.1.8: the
trainers' messages and their MPI_Finalize go on; mpirun then returns 1, for the process that left
without MPI_Finalize, and 0 where it was started with ``--enable-recovery``. Under ``srun`` (Slurm
22.05) the places are given up before MPI_Finalize, which may wait for a dead one as long as its
connection is held; srun returns 1, too.
"""

import ctypes
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

_FORWARDED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)
_LOOK_EVERY_S = 0.5
_LET_OTHERS_LEAVE_S = 3.0
"""mpirun ends what is left of the job once this process has gone."""
_PR_SET_PDEATHSIG = 1
_LEAVE = ".leave"
"""Likewise: whoever waits for a dead one still is to end, before training's MPI does."""
_DIED = ".died"
"""Appended to the name of a sign: the process whose place it is has ended."""

_TCP = re.compile(r"tcp4://([\d.]+):(\d+)|tcp6://\[([^\]]+)\]:(\d+)")
"""In a URI of PMIx's; a path in it is that of a Unix socket."""
_MOST_CONNECTIONS = 8

_channel: socket.socket | None = None
"""To the process that keeps this one's place; None: nobody does."""


def keep_place(rank: int) -> None:
    """From here on a child is the rank. Returns in the child; this process waits, and ends as it.

    Call it before anything has started threads, MPI above all. ``rank`` is for a message.
    """
    global _channel
    read, write = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    keeper = os.getpid()
    child = os.fork()
    if child:
        write.close()
        os._exit(_Keeper(rank, child, read).run())
    read.close()
    _channel = write
    with suppress(OSError, AttributeError):  # no orphan where the launcher kills the keeper
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:
        os._exit(1)


def may_die(sign: Path, connections: Sequence[int] = ()) -> None:
    """This process's death shall end nobody else; the place is given up once ``sign`` is there.

    ``connections``: open files that shall outlive it until then.
    """
    _tell(str(sign), connections)


def connections_to_pmix(environ: Mapping[str, str]) -> list[int]:
    """This process's open connections to the PMIx server that its variables name."""
    uris = [value for name, value in environ.items() if name.startswith("PMIX_SERVER_URI")]
    servers = {(m[1] or m[3], int(m[2] or m[4])) for uri in uris for m in _TCP.finditer(uri)}
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as connection:
                peer = connection.getpeername()
            by_path = isinstance(peer, str) and peer and any(peer in uri for uri in uris)
            if by_path or peer[:2] in servers:
                found.append(int(name))
    return sorted(found)[:_MOST_CONNECTIONS]


def leaves_in_order() -> None:
    """This process ends as the launcher expects it."""
    _tell("")


def dismiss(sign: Path) -> None:
    """Rank 0: end an evaluator that waits for a dead one; its place is kept. Raises OSError."""
    sign.parent.mkdir(parents=True, exist_ok=True)
    _leave(sign).touch()


def give_up(sign: Path) -> None:
    """Rank 0: let the keeper that waits for ``sign`` go. Raises OSError."""
    sign.parent.mkdir(parents=True, exist_ok=True)
    sign.touch()


class Deaths:
    """Rank 0: which evaluators' processes have ended, as those who keep their places say."""

    def __init__(self, signs: Mapping[int, Path]) -> None:
        """``signs`` by rank, as :func:`may_die` has them."""
        self._signs = signs
        self._found: tuple[int, ...] = ()
        self._looked_s = -_LOOK_EVERY_S

    def __call__(self) -> tuple[int, ...]:
        """Their ranks. The disk is looked at now and then only."""
        now = time.monotonic()
        if not self._found and now - self._looked_s >= _LOOK_EVERY_S:
            self._looked_s = now
            with suppress(OSError):
                self._found = tuple(r for r, sign in self._signs.items() if _died(sign).exists())
        return self._found


def _died(sign: Path) -> Path:
    return sign.with_name(sign.name + _DIED)


def _leave(sign: Path) -> Path:
    return sign.with_name(sign.name + _LEAVE)


def _tell(text: str, files: Sequence[int] = ()) -> None:
    if _channel is not None:
        socket.send_fds(_channel, [text.encode() + b"\0"], list(files))


class _Keeper:
    """The process that the launcher started."""

    def __init__(self, rank: int, child: int, channel: socket.socket) -> None:
        self._rank, self._child, self._channel = rank, child, channel
        self._launcher = os.getppid()
        self._ended = False
        """The child has."""
        self._terminated = False
        self._told = b""
        self._held: list[int] = []
        """Open files of the child's."""

    def run(self) -> int:
        """Wait for the child; returns the exit code."""
        for number in _FORWARDED:
            signal.signal(number, self._forward)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        self._channel.setblocking(False)
        while (status := self._status()) is None:
            signal.sigtimedwait([signal.SIGCHLD], _LOOK_EVERY_S)
            sign = self._sign()
            with suppress(OSError):
                if sign is not None and (sign.exists() or _leave(sign).exists()):
                    os.kill(self._child, signal.SIGKILL)
        self._ended = True
        code = os.waitstatus_to_exitcode(status)
        sign = self._sign()
        if sign is None or code == 0:
            return self._as_the_child(code)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._say(f"its process has ended ({how}); training goes on without it")
        try:
            with suppress(OSError):
                _died(sign).parent.mkdir(parents=True, exist_ok=True)
                _died(sign).touch()
            if self._wait_for(sign):
                self._clean_up(sign)  # at once: the launcher may leave no time afterwards
                time.sleep(_LET_OTHERS_LEAVE_S)
        finally:
            self._clean_up(sign)
        return 1

    def _clean_up(self, sign: Path) -> None:
        for file in (sign, _died(sign), _leave(sign)):
            with suppress(OSError):
                file.unlink(missing_ok=True)

    def _status(self) -> int | None:
        """The child's, once it has ended."""
        process, status = os.waitpid(self._child, os.WNOHANG)
        return status if process else None

    def _sign(self) -> Path | None:
        """What gives the place up, as the child has told last; None: its death ends the job."""
        with suppress(BlockingIOError, ConnectionResetError):
            while True:
                piece, files, _, _ = socket.recv_fds(self._channel, 4096, _MOST_CONNECTIONS)
                self._held += files
                if not piece:
                    break
                self._told += piece
        told = self._told.decode().split("\0")
        return Path(told[-2]) if len(told) > 1 and told[-2] else None

    def _as_the_child(self, code: int) -> int:
        if code < 0:
            with suppress(OSError, ValueError):
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        return code if code >= 0 else 128 - code

    def _wait_for(self, sign: Path) -> bool:
        """Whether the place was given up; False: the launcher has gone, or ends this process."""
        while os.getppid() == self._launcher and not self._terminated:
            with suppress(OSError):
                if sign.exists():
                    return True
            time.sleep(_LOOK_EVERY_S)
        return False

    def _forward(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._ended:
            self._terminated = number != signal.SIGUSR1
            return
        with suppress(ProcessLookupError):
            os.kill(self._child, number)

    def _say(self, text: str) -> None:
        with suppress(OSError):
            os.write(2, f"evaluator, rank {self._rank}: {text}\n".encode())
