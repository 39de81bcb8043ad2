"""Count and time what a block sends through Horovod and MPI, whoever sends it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class MeasuredSums:
    """Blocking all-reduces of one block, on this rank."""

    seconds: list[float] = field(default_factory=list)
    """Of each, waiting included."""
    size_bytes: int = 0

    @property
    def count(self) -> int:
        """How many."""
        return len(self.seconds)


@contextmanager
def watched_collectives() -> Iterator[MeasuredSums]:
    """Within it every blocking ``hvd.allreduce`` and every sum of the MPI carrier is noted.

    Gradients go through asynchronous calls and are not among them.
    """
    import horovod.torch as hvd

    from megdet_hvd.bn.carriers import MpiCarrier

    seen = MeasuredSums()

    def noting(call: Any, tensor_at: int) -> Any:
        def noted(*arguments: Any, **words: Any) -> Any:
            tensor: Tensor = arguments[tensor_at]
            began = time.perf_counter()
            result = call(*arguments, **words)
            seen.seconds.append(time.perf_counter() - began)
            seen.size_bytes += tensor.numel() * tensor.element_size()
            return result

        return noted

    kept = hvd.allreduce, hvd.allreduce_, MpiCarrier._sum
    hvd.allreduce, hvd.allreduce_ = noting(kept[0], 0), noting(kept[1], 0)
    MpiCarrier._sum = noting(kept[2], 1)  # type: ignore[method-assign]
    synchronised = _note_sync_batch_norm(seen)
    try:
        yield seen
    finally:
        hvd.allreduce, hvd.allreduce_ = kept[0], kept[1]
        MpiCarrier._sum = kept[2]  # type: ignore[method-assign]
        synchronised()


def _note_sync_batch_norm(seen: MeasuredSums) -> Any:
    """Note the calls of hvd.SyncBatchNorm, which submits asynchronously and waits."""
    from horovod.torch import sync_batch_norm

    kept = {
        name: getattr(sync_batch_norm, name)
        for name in ("allgather_async", "allreduce_async", "synchronize")
        if hasattr(sync_batch_norm, name)
    }
    submitted: dict[Any, tuple[float, int]] = {}

    def submitting(call: Any) -> Any:
        def submit(tensor: Tensor, *arguments: Any, **words: Any) -> Any:
            began = time.perf_counter()
            handle = call(tensor, *arguments, **words)
            submitted[handle] = (began, tensor.numel() * tensor.element_size())
            return handle

        return submit

    def synchronize(handle: Any) -> Any:
        result = kept["synchronize"](handle)
        began, size_bytes = submitted.pop(handle)
        seen.seconds.append(time.perf_counter() - began)
        seen.size_bytes += size_bytes
        return result

    for name in kept:
        changed = synchronize if name == "synchronize" else submitting(kept[name])
        setattr(sync_batch_norm, name, changed)

    def restore() -> None:
        for name, call in kept.items():
            setattr(sync_batch_norm, name, call)

    return restore
