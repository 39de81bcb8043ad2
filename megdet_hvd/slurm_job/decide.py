"""What becomes of a job whose program has ended. Pure."""

from dataclasses import dataclass

from megdet_hvd.cluster.outcome import Outcome
from megdet_hvd.errors import (
    FAULT,
    FINISHED,
    RUN_ERROR,
    STOPPED,
    STORAGE_ERROR,
    USER_ERROR,
)

NO_REQUEUE = "USR2"
"""How the batch script's note begins where the user wants the job to end."""

IDLE_STARTS = 5
"""So often in a row a job may be stopped without a new checkpoint, and start again all the same."""


@dataclass(frozen=True)
class Decision:
    """What to do, and why."""

    requeue: bool
    code: int
    """Exit code of the job, where it is not requeued."""
    words: str
    """For the log."""
    failure: bool = False
    """Whether a requeue counts as one after a failure."""


def decide(
    outcome: Outcome | None,
    launcher_code: int,
    *,
    note: str | None,
    job_runs: bool,
    progressed: bool,
    idle: int,
    failures: int,
    allowed: int,
    comes_again: bool = False,
) -> Decision:
    """Whether the job is requeued.

    Args:
        outcome: what the ranks wrote; None: they were killed before they could.
        launcher_code: the launcher's exit code.
        note: why the job was asked to stop; None: nobody asked.
        job_runs: whether Slurm still counts the job as running, not as cancelled or timed out.
        progressed: whether this attempt has left a newer checkpoint than it found.
        idle: how often in a row it was stopped before without having left one.
        failures: how often it was requeued after a failure so far.
        allowed: how often it may be.
        comes_again: Slurm has requeued the job itself, for a node or by an administrator's word.
    """
    if outcome is None and launcher_code == 0:
        return Decision(False, FINISHED, "the program has finished")
    code = (launcher_code or FAULT) if outcome is None else outcome.code
    if code == FINISHED:
        return Decision(False, FINISHED, "the run is complete")
    if code == USER_ERROR:  # the ranks' own, or all that a full disk lets be known
        return Decision(False, code, "not requeued: a mistake in the input would only come again")
    if code == RUN_ERROR and (outcome is None or outcome.iteration is not None):
        return Decision(False, code, "not requeued: the run would come to the same point again")
    if comes_again:
        return Decision(False, code, "Slurm has requeued the job itself, and starts it again")
    kept = "; its checkpoint stays" if code == STOPPED else ""
    if not job_runs:
        ended = "not requeued by itself: Slurm ends the job (cancelled, out of time, a node lost)"
        return Decision(False, code, ended + kept)
    if note is not None and note.startswith(NO_REQUEUE):
        return Decision(False, code, f"not requeued ({note}){kept}")
    if note is not None or code == STOPPED:
        if progressed:
            return Decision(True, code, "requeued: it goes on from its checkpoint")
        if idle < IDLE_STARTS:
            return Decision(True, code, "requeued: it was stopped before it came to a checkpoint")
        words = f"not requeued: stopped {idle + 1} times in a row before it came to a checkpoint"
        return Decision(False, code, f"{words}; is the time limit long enough?")
    if failures >= allowed:
        used = f"{failures} of {allowed} requeues after failures are used"
        return Decision(False, code, f"not requeued: {used}")
    what = "a failure of the storage" if code == STORAGE_ERROR else "a failure"
    return Decision(True, code, f"requeued after {what}, {failures + 1} of {allowed}", True)
