"""What Slurm says of a job that holds, or held, a run folder."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

from megdet_hvd.scontrol import read_job

_ASK_S = 15.0
"""For Slurm's controller to answer."""
_ENDED = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
)
"""Not COMPLETING: its processes may live still."""
_NO_SUCH_JOB = "invalid job id"
"""Slurm forgets jobs some minutes after they have ended, never before."""


@dataclass(frozen=True)
class JobState:
    """A job, as Slurm knows it."""

    name: str
    """``RUNNING``, ``COMPLETED``, …"""
    restarts: int
    """How often it was requeued."""
    uid: int | None
    """Whose it is."""

    @property
    def ended(self) -> bool:
        """Whether no process of it is left."""
        return self.name in _ENDED

    def has_left(self, restart: int, uid: int) -> bool:
        """Whether the start of that number is over. Another user's job only has its number."""
        other = self.uid is not None and self.uid != uid
        return self.ended or other or self.restarts > restart


FORGOTTEN = JobState("COMPLETED", 0, None)
"""A job that Slurm no longer knows."""


def job_state(job: int) -> JobState | None:
    """What Slurm says of a job; None: it does not answer, so the job counts as still there."""
    done = _ask(["scontrol", "show", "job", str(job)])
    if done is None:
        return None
    if done.returncode:
        return FORGOTTEN if _NO_SUCH_JOB in (done.stderr + done.stdout).lower() else None
    return parse_state(done.stdout, job)


def parse_state(text: str, job: int) -> JobState | None:
    """The answer of ``scontrol show job``; None: it says nothing of this one."""
    facts = read_job(text, job)
    if not facts.get("JobState"):
        return None
    owner = facts.get("UserId", "").partition("(")[2].rstrip(")")
    restarts = facts.get("Restarts", "")
    return JobState(
        facts["JobState"],
        int(restarts) if restarts.isdigit() else 0,
        int(owner) if owner.isdigit() else None,
    )


def has_slurm() -> bool:
    """Whether Slurm can be asked from this machine at all."""
    return shutil.which("scontrol") is not None


@cache
def cluster_here() -> str:
    """The name of the cluster that is asked; empty: unknown."""
    name = os.environ.get("SLURM_CLUSTER_NAME", "")
    if name or not has_slurm():
        return name
    done = _ask(["scontrol", "show", "config"])
    for line in "" if done is None or done.returncode else done.stdout.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "ClusterName":
            return value.strip()
    return ""


def _ask(words: list[str]) -> "subprocess.CompletedProcess[str] | None":
    try:
        return subprocess.run(
            words, capture_output=True, encoding="utf-8", errors="replace", timeout=_ASK_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
