"""The groups of processes of a Horovod session, for its life: machines, and who shares BN."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from megdet_hvd.comm import position
from megdet_hvd.comm.mpi_sums import MpiSums
from megdet_hvd.cuda.error import CudaError

if TYPE_CHECKING:
    from megdet_hvd.comm.peer.sums import PeerSums


@dataclass(frozen=True)
class BnGroup:
    """Processes that sum among themselves."""

    ranks: tuple[int, ...]
    """Global ranks, ascending; this process is one of them."""
    process_set: Any
    """Horovod's; None where the group is one process."""
    sums: MpiSums | None = None
    """Over mpi4py, on the same ranks, for BN alone; None where there are none to be had."""
    peer: "PeerSums | None" = None
    """Between the ranks' GPUs; None where nobody asked for them."""
    interrupted: Callable[[], bool] | None = None
    """Whether another member of somebody's program has failed; None: it is not asked for."""


_group: BnGroup | None = None
_session = 0
_close_peer: Callable[[], None] | None = None


def session() -> int:
    """A number that changes whenever Horovod starts or stops: what was made for one is stale."""
    return _session


def remember(bn_group: BnGroup) -> None:
    """Keep the group that this process shares BN statistics with."""
    global _group, _session
    _group, _session = bn_group, _session + 1


def attach(peer: "PeerSums", close: Callable[[], None]) -> None:
    """Let the group that was remembered sum between GPUs; ``close`` ends it, with the session."""
    global _group, _session, _close_peer
    assert _group is not None and _close_peer is None, "once a session"
    _group, _session, _close_peer = replace(_group, peer=peer), _session + 1, close
    position.watch_device(peer)


def forget() -> None:
    """Drop it: Horovod stops."""
    global _group, _session, _close_peer
    if _close_peer is not None and _group is not None and _group.peer is not None:
        position.watch_device(None)
        _group.peer.give_up()  # whatever still waits there, nobody will ask for it
        with suppress(CudaError):  # of a GPU that failed, say, which was told of by then
            _close_peer()
        _close_peer = None
    if _group is not None and _group.sums is not None:
        _group.sums.close()
    _group, _session = None, _session + 1


def bn_group_of_session() -> BnGroup | None:
    """The group that was remembered; None: no session of ours runs."""
    return _group


def bn_group() -> BnGroup | None:
    """The group that this process shares BN statistics with; None: it is alone.

    Without :func:`megdet_hvd.job.session.start`, in a program that called ``hvd.init()``
    itself, the global set serves where one machine is the whole job.

    Raises:
        RuntimeError: Horovod spans several machines and was not started with their sets.
    """
    if _group is not None:
        return _group
    import horovod.torch as hvd

    if not hvd.is_initialized() or hvd.size() == 1:
        return None
    if hvd.size() == hvd.local_size():
        return group_of(hvd.global_process_set)
    raise RuntimeError(
        f"Horovod runs {hvd.size()} processes, {hvd.local_size()} of them on this machine, and "
        "was started without a process set per machine; call megdet_hvd.job.session.start() "
        "instead of hvd.init(), or give the layer process_set=…"
    )


def group_of(process_set: Any) -> BnGroup:
    """The group of a Horovod process set that this process belongs to."""
    size = int(process_set.size())
    ranks = process_set.ranks
    return BnGroup(tuple(range(size)) if ranks is None else tuple(sorted(ranks)), process_set)
