"""Start and stop the watchdog of a job."""

import socket
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from megdet_hvd.job.exchange import gather_objects
from megdet_hvd.job.watch import channel
from megdet_hvd.job.watch.handshake import new_secret
from megdet_hvd.job.watch.hub import Hub
from megdet_hvd.job.watch.identity import own_identity
from megdet_hvd.job.watch.judge import STUCK_OUTSIDE
from megdet_hvd.job.watch.member import Member, WatchedJob
from megdet_hvd.job.watch.spoke import Spoke
from megdet_hvd.job.world import World
from megdet_hvd.serialize import serializable
from megdet_hvd.wording import number_ranges

DEFAULT_LIMIT_S = 60.0
MEET_S = 10.0
"""For all ranks to connect; on a network that works it takes milliseconds."""


@serializable
@dataclass(frozen=True)
class _Meeting:
    """Where rank 0 is met, and what it has decided."""

    limit_s: float
    addresses: tuple[str, ...]
    port: int
    secret: str


class Watchdog:
    """A watchdog at work, or none where the job is one process or the limit is 0."""

    def __init__(self, member: Member | None) -> None:
        self._member = member

    @property
    def watches(self) -> bool:
        """Whether there is anything to watch."""
        return self._member is not None

    def lost(self) -> tuple[int, ...]:
        """The dispensable ranks whose processes have ended, as rank 0 knows; empty elsewhere."""
        return self._member.lost if isinstance(self._member, Hub) else ()

    def need_all(self) -> None:
        """Rank 0: from now on no rank is dispensable, unless it is lost already."""
        if isinstance(self._member, Hub):
            self._member.all_needed = True

    def fail(self, text: str) -> None:
        """This rank has failed, and has said why: the others are told before it ends."""
        if self._member is not None:
            self._member.fail(text)

    def last_words(self) -> str:
        """What this rank has told of others that failed or ended; empty: nothing."""
        return "" if self._member is None else self._member.last_words

    def stop(self) -> None:
        """Take this rank out of the watch, in order. A second call does nothing."""
        member, self._member = self._member, None
        if member is not None:
            member.stop()

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def to_stderr(text: str) -> None:
    """The report in one write: launchers tag, and interleave, what comes in pieces."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def start_watchdog(
    world: World,
    seconds: float = DEFAULT_LIMIT_S,
    *,
    write: Callable[[str], None] = to_stderr,
    exit_code: int = 4,
    gather: Callable[[Any], list[Any]] | None = None,
    at_end: Callable[[str], None] = lambda text: None,
    dispensable: Collection[int] = (),
) -> Watchdog:
    """Watch the job from now on. Every process calls it together, after Horovod's start.

    Once a rank has waited ``seconds`` in a collective for ranks that will not come, or a rank
    gives no sign of life for so long, one rank gives the report to ``write``, and every process
    of the job ends with ``exit_code``; ``at_end`` is given the report too. Rank 0's ``seconds``
    counts; 0: no watchdog. ``gather`` gives every rank the values of all, by rank; None: over
    Horovod. Without the ``dispensable`` ranks the others go on: see :meth:`Watchdog.lost`.
    """
    if world.size == 1:
        return Watchdog(None)
    server: socket.socket | None = None
    meeting: _Meeting | None = None
    if world.rank == 0:
        loopback = len(world.machines) == 1
        server = _listen(loopback, write) if seconds > 0 else None
        where = [] if server is None else channel.addresses(loopback=loopback)
        port = 0 if server is None else server.getsockname()[1]
        meeting = _Meeting(seconds, tuple(where), port, new_secret())
    own = (own_identity(socket.gethostname()), meeting)
    found = gather_objects(own, world, "watchdog") if gather is None else gather(own)
    meeting = found[0][1]
    if meeting.limit_s <= 0:
        return Watchdog(None)
    job = WatchedJob(
        rank=world.rank,
        identities=[identity for identity, _ in found],
        limit_s=meeting.limit_s,
        secret=meeting.secret,
        write=write,
        exit_code=exit_code,
        at_end=at_end,
        dispensable=frozenset(dispensable),
    )
    member: Member
    if world.rank == 0:
        member = hub = Hub(job, server)
        absent = hub.meet(MEET_S) if server is not None else []
        if absent:
            write(_unreached(absent, job, meeting))
    else:
        member = spoke = Spoke(job, meeting.addresses, meeting.port)
        spoke.meet(MEET_S)
    member.start()
    return Watchdog(member)


def _listen(loopback: bool, write: Callable[[str], None]) -> socket.socket | None:
    try:
        return channel.listen(loopback=loopback)
    except OSError as error:
        write(f"warning: watchdog: no port to listen on ({error}): each rank sees only itself")
        return None


def _unreached(absent: Sequence[int], job: WatchedJob, meeting: _Meeting) -> str:
    """The one warning about all ranks that have no connection."""
    hosts = ", ".join(dict.fromkeys(job.hosts[rank] for rank in absent))
    tried = ", ".join(meeting.addresses)
    return (
        f"warning: watchdog: {number_ranges(absent)} of the ranks ({hosts}) have not reached "
        f"{job.hosts[0]} ({tried}; TCP port {meeting.port}) within {MEET_S:.0f} s. A hang there "
        f"is noticed after {STUCK_OUTSIDE * job.limit_s:.0f} s only; let TCP connections pass "
        "between the nodes"
    )
