"""How a process of ours ends, by where and with what it fails. Its processes: tests/engine."""

import errno
from collections.abc import Callable
from typing import NoReturn
from unittest import mock

import pytest

from megdet_hvd.cluster.launch import Launch
from megdet_hvd.errors import FAULT, StorageError, UserError
from megdet_hvd.job.agree import mark_agreed
from megdet_hvd.job.life import Life, Program
from tests.engine.tale import ALONE

SINGLE = Launch("single", "python", None, None, None, None)
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


def lived(program: Program[int], launch: Launch) -> int:
    with (
        mock.patch("megdet_hvd.job.session.start", return_value=ALONE),
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
        assert lived(Program(lambda: 1, raising(mark_agreed(error))), SECOND) == code
    told = capsys.readouterr().err
    assert "Traceback" not in told and told.count("error: ") >= 2


def test_the_exit_code_is_what_work_returns() -> None:
    assert lived(Program(lambda: 5, lambda value, life: value), SECOND) == 5
