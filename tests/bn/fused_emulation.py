"""CGBN's own CUDA kernels, from the same source, compiled for and run on the CPU.

Not emulated: the GPU's memory model, and blocks that run at the same time.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from megdet_hvd.bn import fused_source
from megdet_hvd.bn.fused_kernels import FusedKernels, KernelLaunch, arguments_of
from tests.cuda.emulation import built

HEADER = Path(__file__).with_name("emulated_block.h")
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
Edit = Callable[[str], str]


def as_it_is(source: str) -> str:
    """No fault is planted."""
    return source


class EmulatedLaunch:
    """One kernel; :class:`KernelLaunch`."""

    def __init__(
        self,
        library: ctypes.CDLL,
        name: str,
        switches: Mapping[str, int],
        noted: Callable[[str], None],
    ) -> None:
        self._function = getattr(library, f"emulated_{name}")
        self._types = arguments_of(name)
        self._switches = [
            (ctypes.c_int.in_dll(library, f"emulated_{switch}"), value)
            for switch, value in switches.items()
        ]
        self._name, self._noted = name, noted

    def __call__(
        self, grid: int, block: int, *values: Tensor | int | float | None, stream: int | None
    ) -> None:
        """Run it."""
        assert stream == 0
        packed = [
            kind(value.data_ptr() if isinstance(value, Tensor) else value)
            for kind, value in zip(self._types, values, strict=True)
        ]
        pointers = (ctypes.c_void_p * len(packed))(*(ctypes.addressof(one) for one in packed))
        for switch, setting in self._switches:
            switch.value = setting
        self._function(grid, block, pointers)
        self._noted(self._name)


def emulated_kernels(
    device: torch.device = torch.device("cpu"),  # noqa: B008
    dtypes: Sequence[torch.dtype] = DTYPES,
    *,
    processors: int = 2,
    block: int = fused_source.BLOCK,
    backwards: bool = False,
    edit: Edit = as_it_is,
    fault: int = 0,
    noted: Callable[[str], None] = lambda _: None,
    captured: Callable[[], bool] = lambda: False,
) -> FusedKernels:
    """``backwards``: blocks and threads from the last on. ``edit``: of the source.

    It may plant faults that ``emulated_fault`` chooses among, which is ``fault``.
    """
    switches = {"order": int(backwards), "fault": fault}
    kernels: dict[tuple[torch.dtype, str], KernelLaunch] = {}
    for dtype in dtypes:
        names = fused_source.kernel_names(dtype)
        library = _library(edit(fused_source.source(dtype, block)), names)
        for name in names:
            kernels[dtype, name] = EmulatedLaunch(library, name, switches, noted)
    return FusedKernels(device, kernels, processors, lambda: 0, block, captured)


@cache
def _library(source: str, names: Sequence[str]) -> ctypes.CDLL:
    offered = "".join(f"EMULATED({name})\n" for name in names)
    # Without a name of its own, shared memory of a template would be one for all libraries.
    whole = f"{HEADER.read_text(encoding='utf-8')}\nnamespace {{\n{source}\n}}\n{offered}"
    # One call at a time: threads of a kernel are the library's own.
    return ctypes.PyDLL(str(built(whole)))
