"""Who holds a run folder, as its record says; and whether that process is gone, where one can see.

The record is written whole, by rename, and from then on only its last line is changed in place, by
the owner's heartbeat. Whoever takes the folder over renames a record of its own over it; the former
owner's heartbeat then goes to a file that has no name any more.
"""

import json
import os
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

_BEAT = "beat {:012d}\n"
BEAT_BYTES = len(_BEAT.format(0))
"""Length of a record's last line."""
_STOPPED, _DEAD = "Tt", "ZXx"
"""States in /proc/PID/stat."""


@dataclass(frozen=True)
class Owner:
    """A process that holds, or wants, a run folder; told apart from every other on any machine."""

    nonce: str
    """Of this one attempt to hold it."""
    host: str
    boot: str
    """Boot id of the machine's kernel; empty where there is none."""
    pid_space: str
    """Inode of the PID namespace: containers count their own."""
    pid: int
    start: str
    """When the process started, clock ticks: a PID may be used again."""
    since: float
    """When it took the folder, seconds since 1970 by its own clock: for messages only."""
    uid: int
    job: int | None = None
    """Its Slurm job."""
    restart: int = 0
    """How often that had been requeued."""
    cluster: str = ""
    """The cluster that counts these jobs; empty: unknown."""
    native: bool = True
    """Whether it holds a lock of the file system, which ends with the process."""
    member: str = ""
    """``ARRAY_MEMBER`` of a job of an array: its number may be the whole array's, too."""

    @property
    def slurm_id(self) -> str:
        """How Slurm's commands mean its job alone; empty: it has none."""
        return self.member or ("" if self.job is None else str(self.job))

    def __str__(self) -> str:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        job = "" if self.job is None else f", Slurm job {self.slurm_id}"
        return f"process {self.pid} on {self.host}{job}, since {began}"


@dataclass(frozen=True)
class OwnerRecord:
    """What was read of a record."""

    text: str
    """All of it: it changes with each heartbeat."""
    owner: Owner | None
    """None: it can't be understood."""

    def __str__(self) -> str:
        return "somebody unknown" if self.owner is None else str(self.owner)


def own_identity(environ: Mapping[str, str]) -> Owner:
    """This process, about to hold a folder. ``environ``: for Slurm's variables."""
    pid = os.getpid()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        space = os.readlink("/proc/self/ns/pid")
        start = _status(pid)[1]
    except (OSError, LookupError):
        boot = space = start = ""
    job, restart = environ.get("SLURM_JOB_ID", ""), environ.get("SLURM_RESTART_COUNT", "")
    array, task = (environ.get(f"SLURM_ARRAY_{name}_ID", "") for name in ("JOB", "TASK"))
    return Owner(
        nonce=secrets.token_hex(8),
        host=socket.gethostname(),
        boot=boot,
        pid_space=space,
        pid=pid,
        start=start,
        since=time.time(),
        uid=os.getuid(),
        job=int(job) if job.isdigit() else None,
        restart=int(restart) if restart.isdigit() else 0,
        cluster=environ.get("SLURM_CLUSTER_NAME", ""),
        member=f"{array}_{task}" if array.isdigit() and task.isdigit() else "",
    )


def record_text(owner: Owner) -> str:
    """A new record: a line of JSON, and the heartbeat's."""
    values = asdict(owner)
    if not owner.member:  # which former versions do not know
        del values["member"]
    return f"{json.dumps(values)}\n{beat_line(0)}"


def beat_line(number: int) -> str:
    """The record's last line at the heartbeat of that number."""
    return _BEAT.format(number)


def read_record(file: Path) -> OwnerRecord | None:
    """The record; None: nobody holds the folder.

    Raises:
        OSError: it can't be read.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    try:
        values = json.loads(text.partition("\n")[0])
        owner = Owner(**values)
        sound = isinstance(owner.pid, int) and isinstance(owner.since, int | float)
        sound &= isinstance(owner.restart, int) and isinstance(owner.job, int | None)
        sound &= isinstance(owner.member, str)
    except (ValueError, TypeError, RecursionError):
        return OwnerRecord(text, None)
    return OwnerRecord(text, owner if sound else None)


def on_this_machine(owner: Owner, own: Owner) -> bool:
    """Whether both run under one kernel; the same machine after a reboot is another."""
    return bool(owner.boot) and owner.boot == own.boot


def process_runs(owner: Owner, own: Owner) -> bool | None:
    """Whether that process runs: False where it has ended, None where that can't be seen.

    Not seen: processes of other machines, those of other containers, and stopped ones, which hold
    what they have and do nothing with it.
    """
    if not on_this_machine(owner, own) or owner.pid_space != own.pid_space or not owner.start:
        return None
    try:
        state, start = _status(owner.pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    except (OSError, LookupError):
        return None
    if start != owner.start or state in _DEAD:
        return False
    return None if state in _STOPPED else True


def _status(pid: int) -> tuple[str, str]:
    """State and start time; the second field, a name, may hold spaces and brackets."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19]
