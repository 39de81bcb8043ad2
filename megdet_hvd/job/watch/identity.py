"""Which process a rank is, so surely that another one may kill it when it is stopped."""

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from megdet_hvd.serialize import serializable


@serializable
@dataclass(frozen=True)
class Identity:
    """A process, told apart from every other on any machine, before or since."""

    host: str
    boot: str
    """Boot id of the kernel; empty where there is none, and then nothing is ever killed."""
    pid_space: str
    """Inode of the PID namespace: containers count their own."""
    pid: int
    start: str
    """Start time in clock ticks: a PID may be used again."""


def _started(pid: int) -> str:
    """Field 22 of /proc/PID/stat; the second one, a name, may hold spaces and brackets."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()[19]


def own_identity(host: str) -> Identity:
    """This process."""
    pid = os.getpid()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        space = os.readlink("/proc/self/ns/pid")
        start = _started(pid)
    except OSError:
        return Identity(host, "", "", pid, "")
    return Identity(host, boot, space, pid, start)


def kill(other: Identity, own: Identity) -> bool:
    """SIGKILL the process if it runs on this machine and is still the same; whether it was sent.

    A stopped process can't end itself, and not every launcher ends it.
    """
    if not other.boot or (other.boot, other.pid_space) != (own.boot, own.pid_space):
        return False
    if other.pid == own.pid:
        return False
    with suppress(OSError):
        handle = os.pidfd_open(other.pid)  # from here on, the number can't pass to another
        try:
            if _started(other.pid) != other.start:
                return False
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            return True
        finally:
            os.close(handle)
    return False
