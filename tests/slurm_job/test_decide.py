import pytest

from megdet_hvd.cluster.outcome import Outcome
from megdet_hvd.errors import STORAGE_ERROR
from megdet_hvd.slurm_job.decide import IDLE_STARTS, decide
from megdet_hvd.slurm_job.record import failures_of, idle_starts_of

USR1 = "Slurm sent USR1: the time limit or a preemption is near"
USR2 = "USR2: stop without a requeue"
STEP = 7


@pytest.mark.parametrize(
    ("outcome", "launcher", "note", "runs", "progressed", "requeue", "code"),
    [
        # finished, whatever the launcher and the clock say
        (Outcome(0), 0, None, True, True, False, 0),
        (Outcome(0), 1, USR1, False, True, False, 0),
        (None, 0, None, True, False, False, 0),  # a program that writes no outcome
        # stopped in order
        (Outcome(5), 1, USR1, True, True, True, 5),
        (Outcome(5), 5, None, True, True, True, 5),  # a TERM that went to the ranks themselves
        (Outcome(5), 0, USR1, True, False, True, 5),  # before the ranks had started
        (Outcome(5), 5, USR1, False, True, False, 5),  # cancelled by its user
        (Outcome(5), 5, USR2, True, True, False, 5),
        # killed while it was being stopped
        (None, 137, USR1, True, True, True, 137),
        (None, 137, USR2, True, True, False, 137),
        # what would only come again
        (Outcome(2), 1, None, True, True, False, 2),
        (Outcome(2), 1, USR1, True, False, False, 2),
        (Outcome(3, iteration=STEP), 3, None, True, True, False, 3),
        # a disk that was full all the time: the launcher's code is all that is known
        (None, 2, None, True, False, False, 2),
        (None, 3, None, True, True, False, 3),
        (None, 3, USR1, True, True, False, 3),
    ],
)
def test_what_becomes_of_a_job(
    outcome: Outcome | None,
    launcher: int,
    note: str | None,
    runs: bool,
    progressed: bool,
    requeue: bool,
    code: int,
) -> None:
    found = decide(
        outcome,
        launcher,
        note=note,
        job_runs=runs,
        progressed=progressed,
        idle=0,
        failures=9,
        allowed=2,
    )
    assert (found.requeue, found.code, found.failure) == (requeue, code, False), found


def test_a_failure_of_the_storage_is_called_so() -> None:
    found = decide(
        Outcome(6, "stale", STEP),
        1,
        note=None,
        job_runs=True,
        progressed=False,
        idle=0,
        failures=1,
        allowed=2,
    )
    assert (found.requeue, found.failure, found.code) == (True, True, STORAGE_ERROR)
    assert found.words == "requeued after a failure of the storage, 2 of 2"


@pytest.mark.parametrize(
    ("outcome", "launcher"),
    [
        (Outcome(1), 1),
        (Outcome(4), 4),
        (Outcome(6), 6),
        (Outcome(6, iteration=STEP), 6),  # in mid-run
        (None, 6),  # the outcome could not be written either
        (Outcome(3), 3),  # ranks that did not find each other at the start
        (None, 137),
        (None, 6),
    ],
)
def test_failures_are_requeued_so_often_as_is_allowed(
    outcome: Outcome | None, launcher: int
) -> None:
    def requeued(failures: int, *, runs: bool = True) -> tuple[bool, bool]:
        found = decide(
            outcome,
            launcher,
            note=None,
            job_runs=runs,
            progressed=True,
            idle=0,
            failures=failures,
            allowed=2,
        )
        assert found.code == launcher
        return found.requeue, found.failure

    assert [requeued(n) for n in range(4)] == [(True, True)] * 2 + [(False, False)] * 2
    assert requeued(0, runs=False) == (False, False)


@pytest.mark.parametrize("outcome", [Outcome(5), Outcome(1), None])
def test_a_job_that_never_comes_to_a_checkpoint_does_not_go_round_for_ever(
    outcome: Outcome | None,
) -> None:
    requeued = []
    for idle in range(IDLE_STARTS + 2):
        found = decide(
            outcome,
            1,
            note=USR1,
            job_runs=True,
            progressed=False,
            idle=idle,
            failures=0,
            allowed=2,
        )
        requeued.append(found.requeue)
    assert requeued == [True] * IDLE_STARTS + [False] * 2


def test_a_requeue_of_slurms_own_is_told_as_one() -> None:
    """An administrator's ``scontrol requeue``, or a lost node that Slurm was first to see."""
    known = {"note": None, "progressed": True, "idle": 0, "failures": 0, "allowed": 2}
    found = decide(None, 137, job_runs=False, comes_again=True, **known)  # type: ignore[arg-type]
    assert (found.requeue, found.code) == (False, 137)
    assert found.words == "Slurm has requeued the job itself, and starts it again"
    ended = decide(None, 137, job_runs=False, **known)  # type: ignore[arg-type]
    assert "Slurm ends the job (cancelled" in ended.words


def test_what_is_counted_from_the_record() -> None:
    def end(job: int, **values: object) -> dict[str, object]:
        plain = {"requeued": True, "failure": False, "progressed": False}
        return {"event": "end", "job": job, **plain, **values}

    records = [
        end(1, failure=True),
        end(1, progressed=True),
        {"event": "start", "job": 1},
        end(2, failure=True),
        end(1),
        end(1),
        {"event": "start", "job": 1},
    ]
    assert (failures_of(records, 1), failures_of(records, 2)) == (1, 1)
    assert (idle_starts_of(records, 1), idle_starts_of(records, 2)) == (2, 0)
    assert idle_starts_of(records[:3], 1) == 0
