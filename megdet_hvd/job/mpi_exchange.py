"""Values travel between processes over mpi4py, outside Horovod.

As bytes of :mod:`megdet_hvd.serialize`: mpi4py's calls in lower case unpickle.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdet_hvd.serialize import dumps, loads


def allgather_values(communicator: Any, value: Any) -> list[Any]:
    """``value`` of every process, by rank, on every process. All of them call it together."""
    own = np.frombuffer(dumps(value), np.uint8)
    sizes = np.zeros(communicator.Get_size(), np.int64)
    communicator.Allgather(np.asarray([own.size], np.int64), sizes)
    everything = np.zeros(int(sizes.sum()), np.uint8)
    communicator.Allgatherv(own, [everything, sizes.tolist()])
    return _values(everything, sizes)


def gather_values(communicator: Any, value: Any) -> list[Any] | None:
    """``value`` of every process, by rank, on process 0; None elsewhere. All call it together."""
    own = np.frombuffer(dumps(value), np.uint8)
    first = communicator.Get_rank() == 0
    sizes = np.zeros(communicator.Get_size(), np.int64)
    communicator.Gather(np.asarray([own.size], np.int64), sizes if first else None, root=0)
    everything = np.zeros(int(sizes.sum()), np.uint8)
    communicator.Gatherv(own, [everything, sizes.tolist()] if first else None, root=0)
    return _values(everything, sizes) if first else None


def _values(everything: NDArray[np.uint8], sizes: NDArray[np.int64]) -> list[Any]:
    """What lies one behind another, by its sizes."""
    ends = np.cumsum(sizes).tolist()
    return [
        loads(everything[end - size : end].data)
        for end, size in zip(ends, sizes.tolist(), strict=True)
    ]


def broadcast_value(communicator: Any, value: Any) -> Any:
    """Process 0's ``value``, on every process. All of them call it together."""
    first = communicator.Get_rank() == 0
    content = np.frombuffer(dumps(value), np.uint8) if first else np.zeros(0, np.uint8)
    size = np.asarray([content.size], np.int64)
    communicator.Bcast(size, root=0)
    if not first:
        content = np.zeros(int(size[0]), np.uint8)
    communicator.Bcast(content, root=0)
    return value if first else loads(content.data)


def send_value(communicator: Any, value: Any, dest: int, tag: int) -> Any:
    """Begin to send it; the request that says when it is done. Does not wait."""
    return communicator.Isend(np.frombuffer(dumps(value), np.uint8), dest=dest, tag=tag)


def receive_value(communicator: Any, source: int, tag: int) -> Any:
    """The next value that :func:`send_value` sends from there. Waits."""
    from mpi4py import MPI

    status = MPI.Status()
    communicator.Probe(source=source, tag=tag, status=status)
    content = np.zeros(status.Get_count(MPI.BYTE), np.uint8)
    communicator.Recv(content, source=source, tag=tag)
    return loads(content.data)
