"""Kernels of ours on torch's tensors and streams."""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from megdet_hvd.cuda.driver import CudaDriver, DriverPointer, cuda_driver
from megdet_hvd.cuda.error import CudaError
from megdet_hvd.cuda.nvrtc import compile_cubin

POINTER, INT32, INT64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
FLOAT32, FLOAT64 = ctypes.c_float, ctypes.c_double
"""Types of a kernel's arguments."""


class CudaKernel:
    """One kernel, loaded on one GPU."""

    def __init__(
        self,
        driver: CudaDriver,
        function: DriverPointer,
        arguments: Sequence[type[Any]],
        device: int = 0,
    ) -> None:
        """``arguments`` are the types of the kernel's own, in order; ``device`` has it loaded."""
        self._driver = driver
        self._device = device
        self._function = function
        self._types = tuple(arguments)

    def __call__(
        self,
        grid: int,
        block: int,
        *values: Tensor | int | float | None,
        stream: DriverPointer | None = None,
        shared_bytes: int = 0,
    ) -> None:
        """Launch ``grid`` blocks of ``block`` threads; returns at once.

        A tensor stands for the address of its first value. Without a ``stream``, on torch's
        current one, in a capture too. Tensors must live until the kernel has run: on the stream
        that they were made for, torch's allocator sees to it.
        """
        if len(values) != len(self._types):
            raise TypeError(f"the kernel takes {len(self._types)} arguments, not {len(values)}")
        packed = [
            kind(value.data_ptr() if isinstance(value, Tensor) else value)
            for kind, value in zip(self._types, values, strict=True)
        ]
        where = torch.cuda.current_stream().cuda_stream if stream is None else stream
        launch = functools.partial(
            self._driver.launch,
            self._function,
            (grid, 1, 1),
            (block, 1, 1),
            packed,
            stream=where,
            shared_bytes=shared_bytes,
        )
        try:
            launch()
        except CudaError:
            if self._driver.is_in_primary_context(self._device):
                raise
            # The thread has not called CUDA yet: autograd's, if ours is the first backward kernel.
            # Or torch's current GPU is another one than that of the tensors.
            with self._driver.in_primary_context(self._device):
                launch()


@functools.cache
def load_kernel(
    source: str, name: str, arguments: tuple[type[Any], ...], device: int
) -> CudaKernel:
    """The kernel ``name`` of ``source``, compiled for GPU ``device``; the second time at once.

    Raises:
        CudaError, NoCudaLibrary: it can't be compiled or loaded.
    """
    driver = cuda_driver()
    with driver.in_primary_context(device):
        function = driver.function(_module(source, device), name)
        return CudaKernel(driver, function, arguments, device)


@functools.cache
def _module(source: str, device: int) -> DriverPointer:
    """Loaded once for all kernels of a source."""
    cubin = compile_cubin(source, torch.cuda.get_device_capability(device))
    return cuda_driver().load_module(cubin)
