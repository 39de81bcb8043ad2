"""The job put back into the queue, by Slurm's requeue or by a job that follows it."""

import re
import signal
import time
from collections.abc import Callable, Mapping

from megdet_hvd.slurm_job import slurm

AGAIN_S = 10.0
"""Between two tries while Slurm's controller does not answer."""
TELL_S = 600.0
_UNKNOWN_S = 300.0
"""So long an error of unknown meaning is tried again."""
_UPDATE_S = 15.0
"""Of the time that Slurm leaves a script whose job is requeued (``KillWait``, 30 s by default)."""
_DISABLED = re.compile(r"presently disabled|permission denied|not permitted", re.IGNORECASE)
_FOR_GOOD = re.compile(r"invalid job id|already (completing|completed)|no such file", re.IGNORECASE)
_AWAY = re.compile(
    r"unable to contact|connection (refused|timed out|reset|failure)|socket timed out|zero bytes|"
    r"unexpected message|temporarily|standby|not responding|communication|protocol|munge|"
    r"system not ready|slurmctld|backup controller|resource temporarily",
    re.IGNORECASE,
)


def is_disabled(problem: str) -> bool:
    """Whether Slurm requeues no such job (``--no-requeue``, ``JobRequeue=0``), or not for users."""
    return _DISABLED.search(problem) is not None


def may_pass(problem: str, tried_s: float) -> bool:
    """Whether another try may go well.

    While the controller is away nobody can end the job's time either, so there is no limit but
    that one; other errors are believed after a while.
    """
    if _DISABLED.search(problem) or _FOR_GOOD.search(problem):
        return False
    return _AWAY.search(problem) is not None or tried_s < _UNKNOWN_S


def requeue(
    job: int | str,
    leave_out: Mapping[str, str],
    say: Callable[[str], None],
    *,
    enough: Callable[[], bool] = lambda: False,
) -> str | None:
    """Put the job back into the queue; why that failed, or None: Slurm has taken it.

    Args:
        job: its number, or ``ARRAY_MEMBER``.
        leave_out: nodes that it shall not get again, and why.
        say: writes a line of the log.
        enough: the user wants no requeue any more.
    """
    began = told = time.monotonic()
    first = True
    # Slurm ends this script with TERM, which must be let in; but not before the nodes are noted,
    # which Slurm takes of a job that waits, not of one that runs.
    held = signal.SIG_IGN if leave_out else signal.SIG_DFL
    while True:
        signal.signal(signal.SIGTERM, held)
        problem = slurm.requeue(job)
        if problem is None:
            if leave_out:
                _leave_out(job, leave_out, say)
            return None
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        now = time.monotonic()
        if enough() or not may_pass(problem, now - began):
            return problem
        if first or now - told >= TELL_S:
            say(f"Slurm does not take the requeue so far ({problem}): tried every {AGAIN_S:.0f} s")
            first, told = False, now
        time.sleep(AGAIN_S)


def _leave_out(job: int | str, bad: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Note the nodes in the job that waits now."""
    end = time.monotonic() + _UPDATE_S
    while True:
        problem = slurm.exclude(job, list(bad))
        if problem is None or time.monotonic() > end:
            break
        time.sleep(1)
    for node, why in bad.items():
        if problem is None:
            say(f"{node} is left out from now on (ExcNodeList of the job): {why}")
        else:
            say(f"{node} could not be left out ({problem}): {why}")
