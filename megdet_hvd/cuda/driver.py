"""CUDA's driver interface: kernels that are loaded and launched, memory shared by processes.

Every call acts in the calling thread's current context. torch makes a device's primary context
current in each thread that works on the device, which is where tensors live; elsewhere
:meth:`CudaDriver.in_primary_context` does.
"""

import ctypes
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from megdet_hvd.cuda.error import CudaError, NoCudaLibrary

IPC_HANDLE_BYTES = 64
_LAZY_ENABLE_PEER_ACCESS = 1
"""Of cuIpcOpenMemHandle, the one flag that it takes."""
_PORTABLE, _DEVICE_MAP = 1, 2
"""Of cuMemHostAlloc: pinned for all contexts, and with an address on the device."""

DriverPointer = int
"""An address on the device, or a handle of the driver's."""


class _IpcHandle(ctypes.Structure):
    """Passed by value."""

    _fields_ = (("reserved", ctypes.c_ubyte * IPC_HANDLE_BYTES),)


class PinnedMemory(NamedTuple):
    """Memory of the host that a kernel reads and writes."""

    host: int
    """Its address here."""
    device: DriverPointer
    """Its address in a kernel."""
    size: int
    """Bytes."""


class CudaDriver:
    """libcuda. A call that fails raises CudaError, one that is not there NoCudaLibrary."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """``library`` has the functions of libcuda.so.1."""
        self._library = library
        self._contexts: dict[int, ctypes.c_void_p] = {}
        """By GPU, primary contexts that are kept until the process ends, as torch keeps them: the
        last to give one back would take memory and kernels along that are still in use."""
        self._call("cuInit", ctypes.c_uint(0))

    def _call(self, function: str, *arguments: object) -> None:
        try:
            call = getattr(self._library, function)
        except AttributeError:
            name = self._library._name
            raise NoCudaLibrary(f"{name} has no {function}: the CUDA driver is too old") from None
        number = call(*arguments)
        if number:
            raise CudaError(function, number, *self._words(number))

    def _words(self, number: int) -> tuple[str, str]:
        """Name and text of an error."""
        found = []
        for function in ("cuGetErrorName", "cuGetErrorString"):
            text = ctypes.c_char_p()
            getattr(self._library, function)(number, ctypes.byref(text))
            found.append(text.value.decode("ascii", "replace") if text.value else "")
        return found[0] or "an error without a name", found[1]

    def loads_eagerly(self) -> bool:
        """Whether all kernels are loaded when CUDA starts (``CUDA_MODULE_LOADING=EAGER``).

        Otherwise each is loaded when it is first launched, which may wait for all that runs.
        """
        eager, found = 1, ctypes.c_int()
        self._call("cuModuleGetLoadingMode", ctypes.byref(found))
        return found.value == eager

    def _device(self, device: int) -> ctypes.c_int:
        found = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(found), ctypes.c_int(device))
        return found

    def _primary_context(self, device: int) -> ctypes.c_void_p:
        """The one that torch uses on GPU ``device``."""
        found = self._contexts.get(device)
        if found is None:
            found = ctypes.c_void_p()
            own = self._device(device)
            self._call("cuDevicePrimaryCtxRetain", ctypes.byref(found), own)
            self._contexts[device] = found
        return found

    @contextmanager
    def in_primary_context(self, device: int) -> Iterator[None]:
        """Within it, the context that torch uses on GPU ``device`` is this thread's."""
        self._call("cuCtxPushCurrent_v2", self._primary_context(device))
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def is_in_primary_context(self, device: int) -> bool:
        """Whether that is this thread's already."""
        found = ctypes.c_void_p()
        self._call("cuCtxGetCurrent", ctypes.byref(found))
        return found.value == self._primary_context(device).value

    def load_module(self, cubin: bytes) -> DriverPointer:
        """Machine code, made ready for launches."""
        module = ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), cubin)
        return module.value or 0

    def function(self, module: DriverPointer, name: str) -> DriverPointer:
        """A kernel of a module."""
        found = ctypes.c_void_p()
        where = ctypes.c_void_p(module)
        self._call("cuModuleGetFunction", ctypes.byref(found), where, name.encode("ascii"))
        return found.value or 0

    def launch(
        self,
        function: DriverPointer,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[object],
        *,
        stream: DriverPointer,
        shared_bytes: int = 0,
    ) -> None:
        """Put a kernel on a stream; returns at once.

        ``arguments`` are ctypes values of the kernel's own types, which the driver copies before
        it returns. ``stream`` 0 is the legacy default stream.
        """
        values = [ctypes.addressof(argument) for argument in arguments]  # type: ignore[arg-type]
        addresses = (ctypes.c_void_p * len(values))(*values)
        self._call(
            "cuLaunchKernel",
            ctypes.c_void_p(function),
            *map(ctypes.c_uint, (*grid, *block, shared_bytes)),
            ctypes.c_void_p(stream),
            addresses,
            None,
        )

    def allocate(self, size: int) -> DriverPointer:
        """``size`` bytes on the device, with zeros, to be shared with other processes.

        torch's own allocations can't be: a handle names all of a segment, and expandable segments
        have none.
        """
        found = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(found), ctypes.c_size_t(size))
        try:
            self.fill(found.value, 0, size)
            self.synchronize()  # the driver's memset may return before it is done
        except CudaError:
            self.free(found.value)
            raise
        return found.value

    def free(self, memory: DriverPointer) -> None:
        """Undo :meth:`allocate`; waits for all that runs on the device."""
        self._call("cuMemFree_v2", ctypes.c_uint64(memory))

    def fill(self, memory: DriverPointer, value: int, size: int) -> None:
        """Set ``size`` bytes to ``value``."""
        where = ctypes.c_uint64(memory)
        self._call("cuMemsetD8_v2", where, ctypes.c_ubyte(value), ctypes.c_size_t(size))

    def copy_to_device(self, memory: DriverPointer, data: bytes) -> None:
        """Write bytes; done on return."""
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(memory), data, ctypes.c_size_t(len(data)))

    def copy_from_device(self, memory: DriverPointer, size: int) -> bytes:
        """Read bytes, after what runs on the legacy default stream."""
        found = ctypes.create_string_buffer(size)
        self._call("cuMemcpyDtoH_v2", found, ctypes.c_uint64(memory), ctypes.c_size_t(size))
        return found.raw

    def synchronize(self) -> None:
        """Wait for all that runs in the context."""
        self._call("cuCtxSynchronize")

    def is_idle(self, stream: DriverPointer) -> bool:
        """Whether all that was put on a stream has ended; does not wait.

        Raises:
            CudaError: what ran there failed.
        """
        not_ready = 600
        number: int = self._library.cuStreamQuery(ctypes.c_void_p(stream))
        if number not in (0, not_ready):
            raise CudaError("cuStreamQuery", number, *self._words(number))
        return number == 0

    def ipc_handle(self, memory: DriverPointer) -> bytes:
        """What another process of this machine opens memory of :meth:`allocate` with."""
        handle = _IpcHandle()
        self._call("cuIpcGetMemHandle", ctypes.byref(handle), ctypes.c_uint64(memory))
        return bytes(handle.reserved)

    def open_ipc(self, handle: bytes) -> DriverPointer:
        """The memory of another process, on its GPU, whether or not this process may see that one.

        Raises:
            ValueError: the handle is none.
            CudaError: there is no way from GPU to GPU, or the system does not allow it.
        """
        if len(handle) != IPC_HANDLE_BYTES:
            raise ValueError(f"an IPC handle has {IPC_HANDLE_BYTES} bytes, not {len(handle)}")
        found, by_value = ctypes.c_uint64(), _IpcHandle.from_buffer_copy(handle)
        flags = ctypes.c_uint(_LAZY_ENABLE_PEER_ACCESS)
        self._call("cuIpcOpenMemHandle_v2", ctypes.byref(found), by_value, flags)
        return found.value

    def close_ipc(self, memory: DriverPointer) -> None:
        """Undo :meth:`open_ipc`; the owner frees the memory after all others have closed it."""
        self._call("cuIpcCloseMemHandle", ctypes.c_uint64(memory))

    def allocate_pinned(self, size: int) -> PinnedMemory:
        """``size`` bytes of the host that kernels read and write too, with zeros."""
        host = ctypes.c_void_p()
        flags = ctypes.c_uint(_PORTABLE | _DEVICE_MAP)
        self._call("cuMemHostAlloc", ctypes.byref(host), ctypes.c_size_t(size), flags)
        address = host.value or 0
        ctypes.memset(address, 0, size)
        device = ctypes.c_uint64()
        self._call("cuMemHostGetDevicePointer_v2", ctypes.byref(device), host, ctypes.c_uint(0))
        return PinnedMemory(address, device.value, size)


@functools.cache
def cuda_driver() -> CudaDriver:
    """The driver of this machine.

    Raises:
        NoCudaLibrary: it has none.
        CudaError: it does not start (no GPU is to be seen, say).
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise NoCudaLibrary(
            f"no CUDA driver on this machine: libcuda.so.1 can't be loaded ({error})"
        ) from None
    return CudaDriver(library)
