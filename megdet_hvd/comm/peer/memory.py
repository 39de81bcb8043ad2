"""What one rank's sums stand in: its inbox, those of the others, and words of its own."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megdet_hvd.comm.peer import kernel
from megdet_hvd.comm.peer.layout import (
    FIRST_NUMBER,
    HOST_WORDS,
    STATE_WORDS,
    inbox_bytes,
    setup_words,
)
from megdet_hvd.comm.peer.sums import ARGUMENTS, NOTICE_S, PATIENCE_S, PeerSums
from megdet_hvd.cuda.driver import CudaDriver, DriverPointer, PinnedMemory, cuda_driver
from megdet_hvd.cuda.error import CudaError
from megdet_hvd.cuda.launch import CudaKernel, load_kernel


@dataclass(frozen=True)
class GpuAccess:
    """How a GPU is reached."""

    driver: CudaDriver
    device: torch.device
    """Where its tensors are."""
    number: int
    """The driver's."""
    kernel: Callable[[], CudaKernel]
    """Loads the one of :mod:`megdet_hvd.comm.peer.kernel`."""
    stream: Callable[[], DriverPointer]
    """torch's current one."""


def gpu_access(device: torch.device) -> GpuAccess:
    """The one of this process's that torch calls ``device``.

    Raises:
        CudaError, NoCudaLibrary: there is no driver, or it does not start.
    """
    number = torch.cuda.current_device() if device.index is None else device.index

    def load() -> CudaKernel:
        return load_kernel(kernel.SOURCE, kernel.NAME, ARGUMENTS, number)

    def stream() -> DriverPointer:
        found: int = torch.cuda.current_stream(device).cuda_stream
        return found

    return GpuAccess(cuda_driver(), device, number, load, stream)


_BLOCK = 2 << 20
"""Smaller allocations may share a block of this size, and other processes open whole blocks."""

_kept: dict[tuple[int, int], list[tuple[DriverPointer, PinnedMemory]]] = {}
"""Inboxes and words for the host of sums that were closed, by GPU and number of ranks.

Memory that other processes have open must not be freed, and nobody can tell when they have closed
it; a watchdog may look at the words at any time. So both serve the next session of as many ranks.
"""


def _made(driver: CudaDriver, ranks: int) -> tuple[DriverPointer, PinnedMemory]:
    """An inbox and words for the host."""
    inbox = driver.allocate(-(-inbox_bytes(ranks) // _BLOCK) * _BLOCK)
    try:
        return inbox, driver.allocate_pinned(4 * HOST_WORDS)
    except CudaError:
        driver.free(inbox)
        raise


class PeerMemory:
    """One rank's. Its inbox is there at once; sums are, once all inboxes are known."""

    def __init__(self, access: GpuAccess, ranks: int) -> None:
        """For a group of so many.

        Raises:
            CudaError: memory is out, or can't be shared between processes.
        """
        self._access, self._ranks = access, ranks
        driver = access.driver
        with driver.in_primary_context(access.number):
            kept = _kept.get((access.number, ranks))
            self._inbox, self._host = kept.pop() if kept else _made(driver, ranks)
            try:
                driver.fill(self._inbox, 0, inbox_bytes(ranks))
                driver.synchronize()
                ctypes.memset(self._host.host, 0, self._host.size)
                self.handle = driver.ipc_handle(self._inbox)
            except CudaError:
                self._keep()
                raise
        self._state: Tensor | None = None
        self._group: DriverPointer = 0
        self._opened: list[DriverPointer] = []
        self._inboxes: list[DriverPointer] = []

    def connect(self, own: int, handles: Sequence[bytes]) -> None:
        """Open the others' inboxes. ``handles`` by place in the group, where ``own`` is this one.

        Raises:
            CudaError: the GPUs can't reach one another, or the system does not let them.
        """
        driver = self._access.driver
        with driver.in_primary_context(self._access.number):
            for place, handle in enumerate(handles):
                if place == own:
                    self._inboxes.append(self._inbox)
                    continue
                opened = driver.open_ipc(handle)
                self._opened.append(opened)
                self._inboxes.append(opened)
            self._group = driver.allocate(len(self._words(own, PATIENCE_S)))
        self._state = torch.zeros(STATE_WORDS, dtype=torch.int32, device=self._access.device)
        self._state[0] = FIRST_NUMBER

    def sums(self, ranks: Sequence[int], own: int) -> PeerSums:
        """The sums of ``ranks``, with :meth:`connect` before and :meth:`set_patience` after it.

        Raises:
            CudaError, NoCudaLibrary: the kernel can't be compiled or loaded.
        """
        assert self._state is not None, "connect() comes first"
        self.set_patience(own, PATIENCE_S)
        kernel = self._access.kernel()
        return PeerSums(ranks, kernel, self._group, self._state, self._host.host)

    def set_patience(self, own: int, seconds: float) -> None:
        """After so long a sum is lost; no sum must be under way."""
        driver = self._access.driver
        with driver.in_primary_context(self._access.number):
            driver.copy_to_device(self._group, self._words(own, seconds))

    def _words(self, own: int, patience_s: float) -> bytes:
        state = 0 if self._state is None else self._state.data_ptr()
        inboxes = self._inboxes
        host = self._host.device
        return setup_words(own, inboxes, state, host, patience_s=patience_s, notice_s=NOTICE_S)

    def close(self) -> None:
        """Give it back once the GPU is done with it; its sums must have ended, or be given up."""
        driver = self._access.driver
        with driver.in_primary_context(self._access.number):
            driver.synchronize()
            for opened in self._opened:
                driver.close_ipc(opened)
            if self._group:
                driver.free(self._group)
        self._opened, self._inboxes, self._group = [], [], 0
        self._keep()

    def _keep(self) -> None:
        kept = self._inbox, self._host
        _kept.setdefault((self._access.number, self._ranks), []).append(kept)
