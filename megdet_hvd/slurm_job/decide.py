"""What becomes of a job whose program has ended. Pure."""

from dataclasses import dataclass

from megdet_hvd.cluster.outcome import Outcome

FINISHED, FAULT, USER_ERROR, RUN_ERROR, HANG, STOPPED = range(6)
"""The exit codes of :mod:`megdet_hvd.engine.program`, which can't be imported without torch."""

NO_REQUEUE = "USR2"
"""How the note in the stop file begins where the user wants the job to end."""


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
    failures: int,
    allowed: int,
) -> Decision:
    """Whether the job is requeued.

    Args:
        outcome: what the ranks wrote; None: they were killed before they could.
        launcher_code: the launcher's exit code.
        note: content of the stop file; None: nobody asked the job to stop.
        job_runs: whether Slurm still counts the job as running, not as cancelled or timed out.
        failures: how often it was requeued after a failure so far.
        allowed: how often it may be.
    """
    if outcome is None and launcher_code == 0:
        return Decision(False, FINISHED, "the program has finished")
    code = (launcher_code or FAULT) if outcome is None else outcome.code
    if code == FINISHED:
        return Decision(False, FINISHED, "the run is complete")
    if code == STOPPED:
        return _stopped(note, job_runs)
    if code == USER_ERROR and outcome is not None:
        return Decision(False, code, "not requeued: a mistake in the input would only come again")
    if code == RUN_ERROR and outcome is not None:
        return Decision(False, code, "not requeued: the run would come to the same point again")
    if not job_runs:
        return Decision(False, code, "not requeued: Slurm ends the job (cancelled or out of time)")
    if note is not None and note.startswith(NO_REQUEUE):
        return Decision(False, code, f"not requeued ({note})")
    if note is not None:
        words = "requeued: it was told to stop and could not write a checkpoint in order"
        return Decision(True, code, words)
    if failures >= allowed:
        return Decision(
            False, code, f"not requeued: {failures} of {allowed} requeues after failures are used"
        )
    return Decision(True, code, f"requeued after a failure, {failures + 1} of {allowed}", True)


def _stopped(note: str | None, job_runs: bool) -> Decision:
    if not job_runs:
        return Decision(False, STOPPED, "not requeued: Slurm ends the job; its checkpoint stays")
    if note is not None and note.startswith(NO_REQUEUE):
        return Decision(False, STOPPED, f"not requeued ({note}); its checkpoint stays")
    return Decision(True, STOPPED, "requeued: it goes on from its checkpoint")
