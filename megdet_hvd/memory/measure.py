"""Bytes that live tensors hold while a step runs: the most at any time, and what held them.

Every operator is seen as it ends, in the forward and in the backward pass, and every storage as
it goes. Scratch memory inside an operator is not seen; nor is what the allocator keeps for itself.
"""

import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(step: Callable[[], object], model: nn.Module, device: torch.device) -> int:
    """The most bytes alive at a time in ``step``, above weights, buffers and gradients.

    ``step`` runs a forward and a backward pass of ``model``. On a GPU the allocator's own count
    is taken; gradients then exist beforehand, and the newest of each weight counts until it is
    added to them.
    """
    if device.type == "cuda":
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    model.zero_grad(set_to_none=True)
    with LiveBytes(model) as live:
        step()
    return live.peak


class LiveBytes:
    """Counts within its block; afterwards it knows the peak.

    Weights, buffers and gradients of ``model`` do not count, nor what was there before and no
    operator of the block returned.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._watching = ExitStack()
        self._known: dict[int, weakref.ref[Any]] = {}
        self._alive: dict[int, tuple[int, weakref.ref[Any]]] = {}
        self._changes: list[tuple[int, int]] = []
        """(number of the storage, bytes: positive as it comes, negative as it goes)."""
        self._labels: list[str] = []
        self._gradients: set[int] = set()

    def __enter__(self) -> "LiveBytes":
        for tensor in [*self._model.parameters(), *self._model.buffers()]:
            for own in (tensor, tensor.grad):
                if own is not None:
                    storage = own.untyped_storage()
                    self._known[id(storage)] = weakref.ref(storage)
        self._watching.enter_context(_Watch(self._seen))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watching.close()
        for parameter in self._model.parameters():
            if parameter.grad is not None:
                entry = self._alive.get(id(parameter.grad.untyped_storage()))
                if entry is not None:
                    self._gradients.add(entry[0])
        self._alive.clear()

    @property
    def peak(self) -> int:
        """The most bytes alive at a time."""
        return max(self._totals(), default=0)

    def at_peak(self) -> list[tuple[str, int, int]]:
        """What was alive then: operator and shape, how many such tensors, bytes; largest first."""
        totals = self._totals()
        end = totals.index(max(totals)) + 1 if totals else 0
        alive = Counter[int]()
        for number, change in self._changes[:end]:
            alive[number] += change
        count, size = Counter[str](), Counter[str]()
        for number, nbytes in alive.items():
            if nbytes and number not in self._gradients:
                count[self._labels[number]] += 1
                size[self._labels[number]] += nbytes
        return [(label, count[label], nbytes) for label, nbytes in size.most_common()]

    def _totals(self) -> list[int]:
        """Bytes alive after each change."""
        total, totals = 0, []
        for number, change in self._changes:
            total += 0 if number in self._gradients else change
            totals.append(total)
        return totals

    def _seen(self, tensor: Tensor, operator: str) -> None:
        """An operator returned ``tensor``."""
        storage = tensor.untyped_storage()
        key = id(storage)
        known = self._known.get(key)
        if key in self._alive or (known is not None and known() is storage):
            return
        number, size = len(self._labels), storage.nbytes()
        self._labels.append(f"{operator} {tuple(tensor.shape)} {tensor.dtype}")

        def gone(_: Any) -> None:
            if self._alive.pop(key, None) is not None:
                self._changes.append((number, -size))

        self._alive[key] = (number, weakref.ref(storage, gone))
        self._changes.append((number, size))


class _Watch(TorchDispatchMode):
    """Tells of every tensor that an operator returns."""

    def __init__(self, seen: Callable[[Tensor, str], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = seen

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and value.layout is torch.strided:
                self.seen(value, str(func))
        return result
