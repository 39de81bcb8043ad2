"""The carrier's own kernel on a CPU, and ranks of a group as streams of one process."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megdet_hvd.comm.peer import kernel, layout
from megdet_hvd.comm.peer.sums import ARGUMENTS, PeerSums
from megdet_hvd.cuda.driver import CudaDriver, PinnedMemory
from megdet_hvd.cuda.launch import CudaKernel
from tests.cuda.emulation import emulated_cubin

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
  if (!there) sched_yield();
  return there;
}
inline u64 nanoseconds() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000ull + time.tv_nsec;
}
#define LOOK_EVERY 256
"""
"""What the GPU's instructions do, in C++."""

THREADS = 3
"""Of a block: each is a thread of the CPU."""


class FewThreads(CudaKernel):
    """Launches two small blocks where a GPU has up to nine of 512 threads."""

    def __call__(self, grid: int, block: int, *values: object, **options: object) -> None:
        super().__call__(2, THREADS, *values, **options)  # type: ignore[arg-type]


def emulated_kernel(driver: CudaDriver) -> CudaKernel:
    """The kernel's own source, but for its primitives."""
    source = kernel.TYPES + kernel.DEFINITIONS + _PRIMITIVES + kernel.PROTOCOL
    module = driver.load_module(emulated_cubin(source, kernel.NAME))
    return FewThreads(driver, driver.function(module, kernel.NAME), ARGUMENTS)


@dataclass
class OneRank:
    """A rank that is a stream of this process."""

    sums: PeerSums
    stream: int
    host: PinnedMemory
    state: Tensor

    def add_up(self, vector: Tensor, name: str) -> None:
        self.sums.add_up(vector, name, self.stream)


def ranks_of_this_process(
    driver: CudaDriver,
    ranks: Sequence[int],
    *,
    first: int = layout.FIRST_NUMBER,
    patience_s: float = 60.0,
    notice_s: float = 60.0,
) -> list[OneRank]:
    """The ranks of a group. ``first``: number of their first sum."""
    loaded = emulated_kernel(driver)
    inboxes = [driver.allocate(layout.inbox_bytes(len(ranks))) for _ in ranks]
    found = []
    for rank in range(len(ranks)):
        state = torch.zeros(layout.STATE_WORDS, dtype=torch.int32)
        state[0] = ctypes.c_int32(first).value
        host = driver.allocate_pinned(4 * layout.HOST_WORDS)
        words = layout.setup_words(
            rank, inboxes, state.data_ptr(), host.device, patience_s=patience_s, notice_s=notice_s
        )
        group = driver.allocate(len(words))
        driver.copy_to_device(group, words)
        sums = PeerSums(ranks, loaded, group, state, host.host)
        found.append(OneRank(sums, 100 + rank, host, state))
    return found
