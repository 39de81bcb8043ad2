"""How the members of a training end together: all with a result, or all with an exception.

The member that fails frees those that wait for it, then all tell one another how it went for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from megdet_hvd.comm import groups
from megdet_hvd.comm.mpi_sums import SumsState
from megdet_hvd.comm.mpi_wait import Interrupted
from megdet_hvd.errors import MemberError, text_of
from megdet_hvd.job import session
from megdet_hvd.job.agree import is_agreed
from megdet_hvd.job.meeting import Meeting
from megdet_hvd.serialize import serializable

How = Literal["well", "failed", "agreed", "freed"]


@serializable
@dataclass(frozen=True)
class Ending:
    """How it went for one member."""

    how: How
    """``failed`` by itself, ``agreed`` with all others on an error, or ``freed`` from a wait."""
    kind: str = ""
    """Name of its exception's type."""
    text: str = ""
    """Its text."""
    result: Any = None
    """What it brings."""
    group: tuple[int, ...] = ()
    """With whom it sums over MPI; empty: with nobody."""
    sums: SumsState | None = None
    """How far it is with that."""


def end_together(meeting: Meeting, result: Any, error: BaseException | None) -> list[Ending]:
    """End Horovod's session on all members, and say how it went for each, by rank.

    All members call it together, each as soon as it has its ``result`` or its ``error``. Nothing
    of Horovod or of BN's communicators is left afterwards.
    """
    how = how_it_ended(error)
    if how == "failed" and meeting.heard_of_failure():
        how = "freed"  # its error, whatever it says, came after that of another member
    if how == "failed":
        meeting.tell_failure()
    if how != "well":
        session.stop_horovod()  # on all members: whoever waits in Horovod is freed
    group = groups.bn_group_of_session()
    sums = None if group is None else group.sums
    own = Ending(
        how,
        type(error).__name__ if error is not None else "",
        text_of(error) if error is not None else "",
        result,
        group.ranks if group is not None and sums is not None else (),
        None if sums is None else sums.standing(),
    )
    endings = _meet(meeting, own)
    if sums is not None and group is not None:
        found = [endings[rank].sums for rank in group.ranks if endings[rank].group == group.ranks]
        sums.settle([standing for standing in found if standing is not None])
    session.stop_horovod()
    groups.forget()
    return endings


def how_it_ended(error: BaseException | None) -> How:
    """What a member's error means to the others."""
    if error is None:
        return "well"
    if isinstance(error, Interrupted) or _shut_down_by_another(error):
        return "freed"
    return "agreed" if is_agreed(error) else "failed"


def _shut_down_by_another(error: BaseException) -> bool:
    """Horovod's own other errors, of shapes that differ say, are this member's."""
    from horovod.common.exceptions import HorovodInternalError

    if isinstance(error, HorovodInternalError):  # SHUT_DOWN_ERROR: in a wait, or before it
        return "has been shut down" in str(error)
    # The sets go when Horovod ends, so this is said of a sum that was only just to begin.
    return isinstance(error, ValueError) and "Process set provided does not exist" in str(error)


def _meet(meeting: Meeting, own: Ending) -> list[Ending]:
    """The endings of all. A member may come to it while others are at an earlier meeting still."""
    while True:
        try:
            return list(meeting.gather(own, "end"))
        except Interrupted:
            continue


def exception_of(
    endings: Sequence[Ending], rank: int, error: BaseException | None
) -> BaseException | None:
    """What member ``rank`` raises, whose own error is ``error``; None: all went well."""
    if all(ending.how == "well" for ending in endings):
        return None
    if error is not None and endings[rank].how in ("failed", "agreed"):
        return error
    for how in ("failed", "agreed", "freed"):
        for other, ending in enumerate(endings):
            if ending.how == how and other != rank:
                return MemberError(other, ending.kind, ending.text)
    return error
