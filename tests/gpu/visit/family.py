"""Processes of a part: started in a group of their own, and ended with all that they started."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from install.console import descendants

_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2)."""
_GRACE_S = 2.0
_POLL_S = 0.02
_LAST_S = 10.0
"""For the system to take a killed process away: longer, and a driver holds it."""


@contextmanager
def orphans_adopted() -> Iterator[frozenset[int]]:
    """Within it, processes whose parent has ended become this one's, and can be found.

    Gives the children there are already, which are nobody's orphans.
    """
    library = ctypes.CDLL(None)
    library.prctl(_SUBREAPER, 1, 0, 0, 0)
    try:
        yield frozenset(_children())
    finally:
        library.prctl(_SUBREAPER, 0, 0, 0, 0)


def begin(
    words: Sequence[str], log: Path, environ: Mapping[str, str], cwd: Path
) -> "subprocess.Popen[bytes]":
    """Start a command with all its output in ``log``."""
    with log.open("wb") as output:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environ),
            cwd=cwd,
            start_new_session=True,
        )


def end(process: "subprocess.Popen[bytes]") -> None:
    """It, and what it started: asked first, so that it can say where it stood, then killed."""
    family = [process.pid, *descendants(process.pid)]
    _signal(family, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
    _signal([*family, *descendants(process.pid)], signal.SIGKILL)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_LAST_S)


def end_orphans(mark: str, value: str, others: Collection[int]) -> None:
    """Kill the children of this process in whose environment ``mark`` is ``value``, and theirs.

    ``others``: those that are nobody's orphans.
    """
    began = time.monotonic()
    killed: set[int] = set()
    while time.monotonic() - began < _GRACE_S:
        left = [pid for pid in _children() if pid not in others and _has(pid, mark, value)]
        _signal([one for pid in left for one in (pid, *descendants(pid))], signal.SIGKILL)
        killed = {pid for pid in killed | set(left) if not _is_gone(pid)}
        if not left and not killed:
            return
        time.sleep(_POLL_S)


def _is_gone(child: int) -> bool:
    """Whether it has ended; it is taken away then."""
    try:
        return os.waitpid(child, os.WNOHANG)[0] == child
    except ChildProcessError:
        return True


def _has(pid: int, mark: str, value: str) -> bool:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"{mark}={value}".encode() in environ.split(b"\0")


def _children() -> list[int]:
    """By /proc/PID/stat, which every kernel has; not all list a process's children."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):  # it has ended
            _, _, fields = file.read_text(encoding="ascii", errors="replace").rpartition(")")
            if int(fields.split()[1]) == os.getpid():
                found.append(int(file.parent.name))
    return found


def _signal(family: Sequence[int], number: signal.Signals) -> None:
    for pid in family:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
