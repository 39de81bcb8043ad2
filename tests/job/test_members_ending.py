"""Who raises what when members of a training end together."""

import pytest

from megdet_hvd.comm.mpi_wait import Interrupted
from megdet_hvd.errors import MemberError, UserError
from megdet_hvd.job.agree import mark_agreed
from megdet_hvd.job.meeting import SingleMemberMeeting
from megdet_hvd.job.members_ending import Ending, end_together, exception_of, how_it_ended

WELL = Ending("well")
FAULT = Ending("failed", "ZeroDivisionError", "a division")
FREED = Ending("freed", "HorovodInternalError", "Horovod has been shut down")
AGREED = Ending("agreed", "UserError", "a setting")


def test_all_well() -> None:
    assert exception_of([WELL, WELL], 0, None) is None
    assert end_together(SingleMemberMeeting(), 7, None)[0].result == 7


def test_the_failed_raise_their_own_and_the_others_name_them() -> None:
    own, freed = ZeroDivisionError("a division"), Interrupted("x")
    endings = [FREED, WELL, FAULT]
    assert exception_of(endings, 2, own) is own
    for rank, error in ((0, freed), (1, None)):
        told = exception_of(endings, rank, error)
        assert isinstance(told, MemberError)
        assert (told.rank, told.kind, told.text) == (2, "ZeroDivisionError", "a division")
        assert str(told) == "rank 2 failed: ZeroDivisionError: a division"


def test_what_all_agree_on_is_raised_as_it_is() -> None:
    own = mark_agreed(UserError("a setting"))
    assert how_it_ended(own) == "agreed"
    assert exception_of([AGREED, AGREED], 1, own) is own


def test_nobody_knows_why() -> None:
    freed = Interrupted("x")
    told = exception_of([FREED], 0, freed)
    assert told is freed


class Mute(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


def test_an_error_without_a_text_leaves_nobody_waiting() -> None:
    own = Mute()
    (ending,) = end_together(SingleMemberMeeting(), None, own)
    assert (ending.how, ending.kind) == ("failed", "Mute") and "ZeroDivisionError" in ending.text
    assert exception_of([ending], 0, own) is own


def test_horovods_errors_are_told_apart() -> None:
    exceptions = pytest.importorskip("horovod.common.exceptions")
    internal = exceptions.HorovodInternalError
    assert how_it_ended(internal("Horovod has been shut down. This was …")) == "freed"
    assert how_it_ended(internal("Mismatched ALLREDUCE tensor shapes")) == "failed"
    gone = ValueError("Allreduce: Process set provided does not exist, or has not been registered.")
    assert how_it_ended(gone) == "freed" and how_it_ended(ValueError("x")) == "failed"
    assert how_it_ended(KeyboardInterrupt()) == "failed"
