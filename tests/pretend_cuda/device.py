"""``with pretended_cuda() as tally:`` tensors on ``cuda:0``, with neither card nor driver.

Such a tensor wraps one of the CPU. To C++ it is on torch's ``meta`` device, which computes nothing,
so that every operator comes by here; to Python it is on ``cuda:0``, so that the package takes its
branches for CUDA. Numbers are true, computed by the CPU's kernels. Noted are

- what makes the host wait for the device: values read, sizes that depend on values (``nonzero``,
  indices by mask, ``nms``), copies to or from memory that is not pinned;
- which operators start kernels: all but views, new memory, and results without elements.

A CPU tensor of one or more dimensions that meets a CUDA tensor in an operator raises, as it does on
a card. Left out: autocast for CUDA, cuDNN, streams, CUDA's random numbers.

The mode says that it is torch's mode for fake tensors, since ``torch.zeros(device="cuda")`` starts
CUDA unless one of those is on.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
import torchvision  # noqa: F401  (its operators)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

from tests.pretend_cuda.kernels import EMULATED
from tests.pretend_cuda.tally import Tally

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten

WAITS: Mapping[Any, str] = {
    aten._local_scalar_dense.default: "a value is read",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten.equal.default: "equal",
    aten.is_nonzero.default: "a value is read",
    aten.repeat_interleave.Tensor: "repeat_interleave",
    aten.unique_consecutive.default: "unique",
    aten.unique_dim.default: "unique",
    aten._unique2.default: "unique",
    aten._unique.default: "unique",
    aten.bincount.default: "bincount",
    torch.ops.torchvision.nms.default: "nms",
}
"""The result's size, or the host's next line, depends on values."""
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
_LISTS = sys.modules["torch.utils._foreach_utils"]
FOREACH_KINDS: Sequence[list[Any]] = (
    _LISTS._foreach_supported_types,
    sys.modules["torch.optim.optimizer"]._foreach_supported_types,
)
"""What torch's optimizers and norms take many at a time where they are on CUDA."""
AT_ONCE = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
BLOCKS, ELEMENTS = 320, 65536
"""A kernel of an operator on lists takes so many tensors of each of 1 to 5 lists, and so many
blocks of so many elements: torch's multi_tensor_apply."""
LAUNCH_NOTHING = {
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.empty_strided.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
    aten._reshape_alias.default,
    aten._unsafe_view.default,
    aten.detach.default,
    aten.lift_fresh.default,
    aten.resize_.default,
    aten.set_.source_Tensor,
    aten.is_pinned.default,
    aten._pin_memory.default,
    aten.nonzero.default,  # counted as a wait; its kernels are the wait's
    aten._local_scalar_dense.default,
}
"""Beside views: memory, and looks at tensors."""


class CudaTensor(Tensor):
    """A tensor on the pretended device."""

    held: Tensor
    """Its numbers, on the CPU."""

    @staticmethod
    def __new__(cls, held: Tensor) -> "CudaTensor":
        made: CudaTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device("meta"),
            requires_grad=False,
        )
        made.held = held
        return made

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)

    def data_ptr(self) -> int:
        """Where its numbers lie, on the CPU: for kernels that are emulated."""
        return self.held.data_ptr()

    def tolist(self) -> Any:
        """Its numbers, on the host."""
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"CudaTensor({self.held})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _device().run(func, args, kwargs or {})


class _PretendedCuda(TorchDispatchMode):
    """The device, while it is there."""

    _mode_key = torch._C._TorchDispatchModeKey.FAKE

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tally = Tally()
        self._pinned: dict[int, Any] = {}
        """Storages of pinned memory by address; kept, so that no other gets the address."""

    def __enter__(self) -> "_PretendedCuda":
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device="cuda") copies from CPU
        torch._C._ensureCUDADeviceGuardSet()
        entered: _PretendedCuda = super().__enter__()  # type: ignore[no-untyped-call]
        return entered

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(False)
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute ``func``, and note what it asks of the device."""
        if func is torch.ops.prim.device.default:
            return CUDA
        if func is aten.is_pinned.default:
            return args[0].untyped_storage().data_ptr() in self._pinned
        if func is aten._pin_memory.default:
            return self._pin(args[0])
        leaves = tree_leaves((args, kwargs))
        here = [one for one in leaves if isinstance(one, CudaTensor)]
        wanted = kwargs.get("device")
        if not here and not _is_here(wanted):
            return func(*args, **kwargs)
        if func is aten._to_copy.default:
            return self._copied(args[0], kwargs)
        if func is aten.copy_.default:
            return self._copied_into(args[0], *args[1:], **kwargs)
        self._note_waits(func, args)
        if here and func not in INDEXING:
            _refuse_others(func, leaves)
        on_cpu = {k: v for k, v in kwargs.items() if k != "pin_memory"}
        if "device" in on_cpu:
            on_cpu["device"] = torch.device("cpu")
        call = EMULATED.get(func, func)
        found = call(*tree_map(_held, args), **tree_map(_held, on_cpu))
        self._note_launch(func, args, found)
        if func is aten.set_.source_Tensor:
            return args[0]
        made = tree_map(_on_device, found)
        if func._schema.name.startswith("aten::_foreach_"):
            return made  # in place, or anew; never an alias that autograd asks for
        if here and func.namespace == "aten":
            return return_and_correct_aliasing(func, args, kwargs, made)
        return made

    def _pin(self, memory: Tensor) -> Tensor:
        pinned = memory.clone()
        storage = pinned.untyped_storage()
        self._pinned[storage.data_ptr()] = storage
        return pinned

    def _is_pinned(self, memory: Tensor) -> bool:
        return memory.untyped_storage().data_ptr() in self._pinned

    def _copied(self, source: Tensor, kwargs: dict[str, Any]) -> Tensor:
        device = kwargs.get("device") or source.device
        to_here = _is_here(device)
        self._note_copy(source, to_here, kwargs.get("non_blocking", False), None)
        rest = {k: v for k, v in kwargs.items() if k not in ("device", "pin_memory")}
        held = aten._to_copy.default(_held(source), **rest)
        # C++ has the tensor on another device: so even .to() of what it is already comes by here.
        same = to_here and isinstance(source, CudaTensor) and held.dtype == source.dtype
        if to_here and held.numel() and not (same and rest.get("memory_format") is None):
            self.tally.note_launch("copy")
        copy: Tensor = _on_device(held) if to_here else held
        return copy

    def _copied_into(self, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        to_here = isinstance(target, CudaTensor)
        self._note_copy(source, to_here, non_blocking, target)
        if to_here and target.numel():
            self.tally.note_launch("copy")
        _held(target).copy_(_held(source))
        return target

    def _note_copy(
        self, source: Tensor, to_here: bool, non_blocking: bool, target: Tensor | None
    ) -> None:
        from_here = isinstance(source, CudaTensor)
        if from_here == to_here:
            return
        if to_here:
            if not (non_blocking and self._is_pinned(source)):
                pageable = "" if self._is_pinned(source) else " from memory that is not pinned"
                self.tally.note_sync(f"copy to the device{pageable}")
        elif not (non_blocking and target is not None and self._is_pinned(target)):
            self.tally.note_sync("copy to the host")

    def _note_waits(self, func: Any, args: Sequence[Any]) -> None:
        if func in WAITS:
            self.tally.note_sync(WAITS[func])
        if func not in INDEXING:
            return
        indices = [index for index in args[1] if index is not None]
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            self.tally.note_sync("index by mask")
        if any(not isinstance(index, CudaTensor) and index.dim() for index in indices):
            self.tally.note_sync("index from the CPU")

    def _note_launch(self, func: Any, args: Sequence[Any], found: Any) -> None:
        if func.is_view or func in LAUNCH_NOTHING:
            return
        name, _, overload = str(func).partition(".")[2].rpartition(".")
        if name.startswith("_foreach_"):
            for _ in range(_kernels(args)):
                self.tally.note_launch(name)
            return
        tensors = [one for one in tree_leaves(found) if isinstance(one, Tensor)]
        if not tensors or any(one.numel() for one in tensors):
            self.tally.note_launch(name or overload)


def _kernels(args: Sequence[Any]) -> int:
    """How many an operator on lists of tensors starts."""
    lists = [one for one in args if isinstance(one, list | tuple) and isinstance(one[0], Tensor)]
    sizes: list[int] = [one.numel() for one in lists[0]]
    blocks = sum(-(-size // ELEMENTS) for size in sizes)
    return max(-(-len(sizes) // AT_ONCE[len(lists)]), -(-blocks // BLOCKS))


def _is_here(device: Any) -> bool:
    return device is not None and torch.device(device).type in ("cuda", "meta")


def _held(value: Any) -> Any:
    return value.held if isinstance(value, CudaTensor) else value


def _on_device(value: Any) -> Any:
    if isinstance(value, Tensor) and not isinstance(value, CudaTensor):
        return CudaTensor(value)
    return value


def _refuse_others(func: Any, leaves: Sequence[Any]) -> None:
    """Only a CPU tensor without dimensions may meet a CUDA tensor."""
    others = [
        tuple(one.shape)
        for one in leaves
        if isinstance(one, Tensor) and not isinstance(one, CudaTensor) and one.dim()
    ]
    if others:
        raise RuntimeError(
            f"{func}: expected all tensors to be on the same device, and there are cuda:0 and "
            f"cpu, of shape {', '.join(map(str, others))}"
        )


def _lists() -> list[str]:
    """Devices with operators on lists of tensors; C++ calls ours meta."""
    return ["cuda", "meta"]


_devices: list[_PretendedCuda] = []


def _device() -> _PretendedCuda:
    if not _devices:
        raise RuntimeError("a tensor of the pretended device outlived it")
    return _devices[-1]


@contextmanager
def pretended_cuda() -> Iterator[Tally]:
    """Within it there is a device ``cuda:0``; gives what is counted there."""
    device = _PretendedCuda()
    _devices.append(device)
    for kinds in FOREACH_KINDS:
        kinds.append(CudaTensor)
    current = mock.patch.object(torch.cuda, "device", lambda one: nullcontext())
    lists = mock.patch.object(_LISTS, "_get_foreach_kernels_supported_devices", _lists)
    try:
        with device, current, lists:
            yield device.tally
    finally:
        for kinds in FOREACH_KINDS:
            kinds.remove(CudaTensor)
        _devices.pop()
