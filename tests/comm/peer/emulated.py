"""The carrier's own kernel on a CPU."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from megdet_hvd.comm.peer import kernel
from megdet_hvd.comm.peer.memory import GpuAccess
from megdet_hvd.comm.peer.sums import ARGUMENTS
from megdet_hvd.cuda.driver import CudaDriver
from megdet_hvd.cuda.launch import CudaKernel
from megdet_hvd.job.horovod_settings import changed_environment
from megdet_hvd.job.peer import EAGER, MODULE_LOADING, open_peer_sums
from megdet_hvd.job.world import World
from tests.comm.peer.one_process import OneRank, ranks_of_this_process
from tests.cuda.emulation import emulated_cubin, emulated_driver

_PRIMITIVES = """
struct Slot { u64 low, high; };

inline void store_slot(Slot* slot, u64 value, u32 number) {
  __atomic_store_n(&slot->low, (u64)number << 32 | (u32)value, __ATOMIC_RELAXED);
  if (value % 7 == 0) sched_yield();  // torn, now and then
  __atomic_store_n(&slot->high, (u64)number << 32 | value >> 32, __ATOMIC_RELAXED);
}
inline bool load_slot(const Slot* slot, u32 number, u64* value) {
  u64 low = __atomic_load_n(&slot->low, __ATOMIC_RELAXED);
  u64 high = __atomic_load_n(&slot->high, __ATOMIC_RELAXED);
  *value = high << 32 | (u32)low;
  bool there = low >> 32 == number && high >> 32 == number;
  timespec moment = {0, 20000};
  if (!there) nanosleep(&moment, nullptr);  // the cores are the other ranks', too
  return there;
}
inline u64 nanoseconds() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000ull + time.tv_nsec;
}
#define LOOK_EVERY 8
"""
"""What the GPU's instructions do, in C++."""

STREAM = 7
THREADS = 3
"""Of a block: each is a thread of the CPU."""


class FewThreads(CudaKernel):
    """Launches two small blocks where a GPU has up to nine of 512 threads."""

    def __call__(self, grid: int, block: int, *values: object, **options: object) -> None:
        super().__call__(2, THREADS, *values, **options)  # type: ignore[arg-type]


class OnTheSpot(FewThreads):
    """As if the CPU's own operators were on the same stream: they find the sum done."""

    waits = True

    def __call__(self, grid: int, block: int, *values: object, **options: object) -> None:
        super().__call__(grid, block, *values, **{**options, "stream": STREAM})
        while self.waits and not self._driver.is_idle(STREAM):
            time.sleep(0.0002)


def emulated_kernel(driver: CudaDriver, kind: type[CudaKernel] = FewThreads) -> CudaKernel:
    """The kernel's own source, but for its primitives."""
    source = kernel.TYPES + kernel.DEFINITIONS + _PRIMITIVES + kernel.PROTOCOL
    module = driver.load_module(emulated_cubin(source, kernel.NAME))
    return kind(driver, driver.function(module, kernel.NAME), ARGUMENTS)


def emulated_access(_: torch.device) -> GpuAccess:
    """A GPU whose memory is the host's, with CPU tensors that are summed on the spot."""
    return _access(OnTheSpot)


def not_waiting_access(_: torch.device) -> GpuAccess:
    """The same, with streams of its own: what is summed is there once they are idle."""
    return _access(FewThreads)


def _access(kind: type[CudaKernel]) -> GpuAccess:
    driver = emulated_driver()

    def load() -> CudaKernel:
        with driver.in_primary_context(0):
            return emulated_kernel(driver, kind)

    return GpuAccess(driver, torch.device("cpu"), 0, load, lambda: STREAM)


def wait_for_gpu() -> None:
    """Until this process's emulated GPU has done what it was given."""
    driver = emulated_driver()
    while not driver.is_idle(STREAM):
        time.sleep(0.001)


def open_emulated(world: World) -> None:
    """The session's BN group sums by the kernel, run on the CPU. All ranks call it together."""
    with changed_environment({MODULE_LOADING: EAGER}):
        open_peer_sums(world, torch.device("cuda", 0), emulated_access)


def emulated_ranks(driver: CudaDriver, ranks: Sequence[int], **options: Any) -> list[OneRank]:
    """As :func:`tests.comm.peer.one_process.ranks_of_this_process`."""
    access = replace(not_waiting_access(torch.device("cpu")), driver=driver)
    streams = [100 + place for place in range(len(ranks))]
    return ranks_of_this_process(access, ranks, streams, **options)
