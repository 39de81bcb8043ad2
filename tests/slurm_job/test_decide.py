import pytest

from megdet_hvd.cluster.outcome import Outcome
from megdet_hvd.engine import program
from megdet_hvd.slurm_job import decide as module
from megdet_hvd.slurm_job.decide import decide

USR1 = "Slurm sent USR1: the time limit or a preemption is near"


def ended(code: int | None) -> Outcome | None:
    return None if code is None else Outcome(code)


@pytest.mark.parametrize(
    ("outcome", "launcher", "note", "runs", "failures", "requeue", "code", "counts"),
    [
        # finished, whatever the launcher and the clock say
        (0, 0, None, True, 0, False, 0, False),
        (0, 1, USR1, False, 0, False, 0, False),
        # stopped in order
        (5, 1, USR1, True, 9, True, 5, False),
        (5, 5, None, True, 0, True, 5, False),  # a TERM that went to the ranks themselves
        (5, 5, USR1, False, 0, False, 5, False),  # cancelled by its user
        (5, 5, "USR2: stop without a requeue", True, 0, False, 5, False),
        # what would only come again
        (2, 1, None, True, 0, False, 2, False),
        (3, 3, None, True, 0, False, 3, False),
        # failures, 2 of which are allowed
        (1, 1, None, True, 0, True, 1, True),
        (4, 4, None, True, 1, True, 4, True),
        (4, 4, None, True, 2, False, 4, False),
        (None, 137, None, True, 0, True, 137, True),
        (None, 137, None, True, 2, False, 137, False),
        (None, 137, None, False, 0, False, 137, False),
        # killed while it was being stopped: no fault of the run
        (None, 137, USR1, True, 2, True, 137, False),
        (None, 137, "USR2: stop without a requeue", True, 0, False, 137, False),
        # a program that writes no outcome
        (None, 0, None, True, 0, False, 0, False),
    ],
)
def test_what_becomes_of_a_job(
    outcome: int | None,
    launcher: int,
    note: str | None,
    runs: bool,
    failures: int,
    requeue: bool,
    code: int,
    counts: bool,
) -> None:
    found = decide(ended(outcome), launcher, note=note, job_runs=runs, failures=failures, allowed=2)
    assert (found.requeue, found.code, found.failure) == (requeue, code, counts), found


def test_the_exit_codes_are_those_of_the_ranks() -> None:
    for name in ("FAULT", "USER_ERROR", "RUN_ERROR", "HANG", "STOPPED"):
        assert getattr(module, name) == getattr(program, name)
