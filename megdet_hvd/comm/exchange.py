"""Objects travel between ranks over Horovod: no shared folder is needed."""

from typing import Any

from megdet_hvd.comm.position import waiting
from megdet_hvd.comm.world import World


def gather_objects(value: Any, world: World, name: str) -> list[Any]:
    """``value`` of every rank, in rank order, on every rank. All ranks call it together.

    ``name`` names the operation; equal on all ranks.
    """
    if world.size == 1:
        return [value]
    import horovod.torch as hvd

    with waiting(f"megdet.gather.{name}", range(world.size)):
        return list(hvd.allgather_object(value, name=f"megdet.gather.{name}"))


def broadcast_object(value: Any, world: World, name: str) -> Any:
    """Rank 0's ``value``, on every rank. All ranks call it together."""
    if world.size == 1:
        return value
    import horovod.torch as hvd

    with waiting(f"megdet.broadcast.{name}", range(world.size)):
        return hvd.broadcast_object(value, root_rank=0, name=f"megdet.broadcast.{name}")


def barrier(world: World, name: str) -> None:
    """Return once every rank has come here."""
    gather_objects(None, world, f"barrier.{name}")
