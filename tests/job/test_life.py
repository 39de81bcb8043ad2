"""How a process of ours ends, by where and with what it fails. Its processes: tests/engine."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NoReturn
from unittest import mock

import pytest

from megdet_hvd.cluster.launch import Launch
from megdet_hvd.errors import FAULT, RunError, StorageError, UserError
from megdet_hvd.job import outcome_notes, stopping
from megdet_hvd.job.agree import mark_agreed
from megdet_hvd.job.life import Life, Program, run_program
from megdet_hvd.job.needs import SessionNeeds
from tests.engine.tale import ALONE

SINGLE = Launch("single", "python", None, None, None, None)
FIRST = Launch("gloo", "horovodrun --gloo", 2, 0, 0, 2)
SECOND = Launch("gloo", "horovodrun --gloo", 2, 1, 1, 2)


class Ended(Exception):
    """Where the process would be gone."""


class Odd(BaseException):
    pass


class MuteError(UserError):
    def __str__(self) -> str:
        raise ZeroDivisionError


def end(code: int) -> NoReturn:
    raise Ended(code)


def raising(error: BaseException) -> Callable[..., NoReturn]:
    def work(*args: object) -> NoReturn:
        raise error

    return work


def lived(program: Program[int], launch: Launch, watchdog: Any = None) -> int:
    world = replace(ALONE, rank=launch.rank or 0, size=launch.size or 1)
    with (
        mock.patch("megdet_hvd.job.session.start", return_value=world),
        mock.patch("megdet_hvd.job.watch.start_watchdog", return_value=watchdog or mock.Mock()),
        mock.patch("megdet_hvd.job.life._LET_WATCHDOG_SPEAK_S", 0.0),
        mock.patch("megdet_hvd.job.session.stop"),
        mock.patch("megdet_hvd.job.abort.end_job", end),
        mock.patch("megdet_hvd.job.life._LET_OTHERS_SPEAK_S", 0.0),
    ):
        return Life(program, launch, None).run()


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), Odd("x"), KeyError("x")])
@pytest.mark.parametrize("stage", ["configure", "needs", "work"])
def test_whatever_is_raised_in_a_job_ends_all_of_it(
    error: BaseException, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process that leaves by itself, with 0 even, leaves the others waiting."""
    stages = {"configure": lambda: 1, "needs": None, "work": lambda value, life: 0}
    stages[stage] = raising(error)
    with pytest.raises(Ended, match=str(FAULT)):
        lived(Program(**stages), SECOND)  # type: ignore[arg-type]
    assert "rank 1 failed:\nTraceback" in capsys.readouterr().err


def test_alone_who_wants_to_leave_before_anything_runs_may() -> None:
    with pytest.raises(SystemExit, match="7"):
        lived(Program(raising(SystemExit(7)), lambda value, life: 0), SINGLE)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("x"), 2),
        (StorageError("x"), 6),
        (MuteError(), 2),
        (OSError(errno.EIO, "Input/output error", 5), 6),  # of a file that is known by number
    ],
)
def test_known_errors_end_with_their_codes(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lived(Program(raising(error), lambda value, life: 0), SINGLE) == code
    with pytest.raises(Ended, match=str(code)):  # the others don't know of it
        lived(Program(lambda: 1, raising(error)), SECOND)
    if not isinstance(error, OSError):
        assert lived(Program(lambda: 1, raising(mark_agreed(error))), FIRST) == code
    told = capsys.readouterr().err
    assert "Traceback" not in told and told.count("error: ") >= 2


def test_what_libraries_read_when_they_start_is_set_before_unless_the_user_did(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MEGDET_TEST_GIVEN", "the user's")
    monkeypatch.setenv("MEGDET_TEST_MISSING", "")  # so that it is taken back in the end
    monkeypatch.delenv("MEGDET_TEST_MISSING")
    needs = SessionNeeds(environment={"MEGDET_TEST_GIVEN": "ours", "MEGDET_TEST_MISSING": "ours"})

    def work(value: int, life: Life[int]) -> int:
        assert os.environ["MEGDET_TEST_GIVEN"] == "the user's"
        assert os.environ["MEGDET_TEST_MISSING"] == "ours"
        return 7

    assert lived(Program(lambda: 1, work, needs=lambda value: needs), FIRST) == 7


@pytest.fixture
def outcomes() -> Iterator[list[Any]]:
    """What the job's driver is told."""
    told: list[Any] = []
    with mock.patch.object(outcome_notes, "tell", lambda *words: told.append(words)):
        yield told


def test_what_all_agree_on_rank_0_alone_says(
    outcomes: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    error = mark_agreed(UserError("a setting"))
    watchdog = mock.Mock()
    assert lived(Program(lambda: 1, raising(error)), SECOND, watchdog) == 2
    assert capsys.readouterr().err == "" and outcomes == []
    assert watchdog.stop.called and not watchdog.fail.called, "it leaves in order"
    assert lived(Program(lambda: 1, raising(error)), FIRST) == 2
    assert capsys.readouterr().err == "error: a setting\n" and outcomes == [(2, "a setting")]


def test_what_only_a_part_of_the_ranks_agrees_on_ends_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(value: int, life: Life[int]) -> NoReturn:
        life.together = False
        raise mark_agreed(RunError("of the trainers"))

    watchdog = mock.Mock()
    with pytest.raises(Ended, match="3"):
        lived(Program(lambda: 1, work), SECOND, watchdog)
    watchdog.fail.assert_called_once_with("of the trainers")
    assert capsys.readouterr().err == "", "the first of them has said so"


class HorovodInternalError(RuntimeError):
    """As Horovod's is known: by its name."""


@pytest.mark.parametrize("words", ["rank 1 (here) failed: KeyError", ""])
def test_who_is_freed_by_anothers_death_lets_the_watchdog_tell_of_it(
    words: str, outcomes: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    watchdog = mock.Mock(watches=True)
    watchdog.last_words.return_value = words
    with pytest.raises(Ended, match=str(FAULT)):
        lived(Program(lambda: 1, raising(HorovodInternalError("shut down"))), FIRST, watchdog)
    assert not watchdog.fail.called, "it has not failed itself"
    assert ("Traceback" in capsys.readouterr().err) is not bool(words)
    own = f"rank 0: {__name__}.HorovodInternalError: shut down"
    assert outcomes == [(FAULT, words or own)]


def test_the_others_are_told_of_a_fault_before_it_ends_them(outcomes: list[Any]) -> None:
    watchdog = mock.Mock(watches=True)
    with pytest.raises(Ended):
        lived(Program(lambda: 1, raising(KeyError("x"))), SECOND, watchdog)
    watchdog.fail.assert_called_once_with("KeyError: 'x'")
    assert outcomes == [(FAULT, "rank 1: KeyError: 'x'")]


def test_the_outcome_of_a_job_that_ends_well_is_rank_0s(outcomes: list[Any]) -> None:
    for launch in (SECOND, FIRST):
        assert lived(Program(lambda: 1, lambda value, life: 5), launch) == 5
        assert outcomes == ([] if launch is SECOND else [(5,)])


@pytest.mark.parametrize("how", [lambda: 1, raising(UserError("x"))])
def test_signals_are_the_programs_only_while_it_runs(how: Callable[[], int]) -> None:
    handlers = [signal.getsignal(number) for number in stopping.SIGNALS]

    def work(value: int, life: Life[int]) -> int:
        os.kill(os.getpid(), signal.SIGUSR1)
        return 5 if stopping.wanted() == "SIGUSR1 came" else 0

    with (
        mock.patch("megdet_hvd.job.life.read_launch", return_value=SINGLE),
        mock.patch("megdet_hvd.job.life.bind_process", return_value=None),
        mock.patch("megdet_hvd.job.session.start", return_value=ALONE),
        mock.patch("megdet_hvd.job.session.stop"),
    ):
        code = run_program(Program(how, work, stoppable=True))
    assert code in (5, 2)
    assert [signal.getsignal(number) for number in stopping.SIGNALS] == handlers
    assert stopping.wanted() is None


def test_the_exit_code_is_what_work_returns() -> None:
    assert lived(Program(lambda: 5, lambda value, life: value), SECOND) == 5
