"""Values travel between ranks over Horovod: no shared folder is needed.

As bytes of :mod:`megdet_hvd.serialize`, in tensors: Horovod's own object calls unpickle.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from megdet_hvd.comm.position import waiting
from megdet_hvd.job.world import World
from megdet_hvd.serialize import dumps, loads

LARGEST_MESSAGE = 2**30
"""Bytes. MPI counts in 32 bits, in which a message of 2 GiB ends the job or writes elsewhere."""


def gather_objects(value: Any, world: World, name: str) -> list[Any]:
    """``value`` of every rank, in rank order, on every rank. All ranks call it together.

    ``name`` names the operation; equal on all ranks.
    """
    if world.size == 1:
        return [value]
    import horovod.torch as hvd
    import torch

    told = f"megdet.gather.{name}"
    content = bytearray(dumps(value))
    with waiting(told, range(world.size)):
        sizes = hvd.allgather(torch.tensor([len(content)]), name=f"{told}.size").tolist()
        everything = hvd.allgather(torch.frombuffer(content, dtype=torch.uint8), name=told)
    found = memoryview(everything.numpy())
    return [
        value if rank == world.rank else loads(part)
        for rank, part in enumerate(_parts(found, sizes))
    ]


def gather_on_main(value: Any, world: World, name: str) -> list[Any] | None:
    """``value`` of every rank, in rank order, on rank 0; None elsewhere. All call it together.

    One message to rank 0 from each, where :func:`gather_objects` has the values of all travel to
    all. ``name`` names the operation; equal on all ranks.
    """
    if world.size == 1:
        return [value]
    import horovod.torch as hvd
    import torch

    told = f"megdet.gather_on_main.{name}"
    content = bytearray(dumps(value))
    splits = torch.zeros(world.size, dtype=torch.int32)
    splits[0] = len(content)
    if not world.is_main:
        content += b"\0"  # to itself: nobody's message is empty
        splits[world.rank] = 1
    with waiting(told, range(world.size)):
        mine = torch.frombuffer(content, dtype=torch.uint8)
        everything, sizes = hvd.alltoall(mine, splits=splits, name=told)
    if not world.is_main:
        return None
    found = memoryview(everything.numpy())
    return [
        loads(part) if rank else value for rank, part in enumerate(_parts(found, sizes.tolist()))
    ]


def any_rank(own: bool, world: World, name: str) -> bool:
    """Whether it is so on any rank, on every rank. All ranks call it together.

    One number of eight bytes, whatever the number of ranks.
    """
    if world.size == 1:
        return own
    import horovod.torch as hvd
    import torch

    told = f"megdet.any.{name}"
    with waiting(told, range(world.size)):
        count = hvd.allreduce(torch.tensor([int(own)]), op=hvd.Sum, name=told)
    return bool(count)


def _parts(content: memoryview, sizes: Sequence[int]) -> Iterator[memoryview]:
    """What lies one behind another, by its sizes."""
    start = 0
    for size in sizes:
        yield content[start : start + size]
        start += size


def broadcast_object(value: Any, world: World, name: str) -> Any:
    """Rank 0's ``value``, on every rank. All ranks call it together.

    Horovod's call of that name, 0.28.1, makes a tensor of the bytes one by one beside, *measured* 2
    to 8 s for 20 MB, holding Python's lock. A checkpoint of a ResNet-50 has 350 MB: the rank is
    silent for so long that the watchdog takes it for lost. Larger values go in pieces.
    """
    if world.size == 1:
        return value
    import horovod.torch as hvd
    import torch

    told = f"megdet.broadcast.{name}"
    content = bytearray(dumps(value)) if world.is_main else bytearray()
    with waiting(told, range(world.size)):
        size = torch.tensor([len(content)])
        hvd.broadcast_(size, 0, f"{told}.size")
        if not world.is_main:
            content = bytearray(int(size))
        for piece in torch.frombuffer(content, dtype=torch.uint8).split(LARGEST_MESSAGE):
            hvd.broadcast_(piece, 0, told)
    return value if world.is_main else loads(content)


def barrier(world: World, name: str) -> None:
    """Return once every rank has come here."""
    any_rank(False, world, f"barrier.{name}")
