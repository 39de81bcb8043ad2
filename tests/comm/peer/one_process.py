"""Ranks of a group as streams of one process, on one GPU."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megdet_hvd.comm.peer import layout
from megdet_hvd.comm.peer.memory import GpuAccess
from megdet_hvd.comm.peer.sums import PeerSums


@dataclass
class OneRank:
    """A rank that is a stream."""

    sums: PeerSums
    stream: int
    state: Tensor

    def add_up(self, vector: Tensor, name: str) -> None:
        """As :meth:`PeerSums.add_up`, on the rank's own stream."""
        self.sums.add_up(vector, name, self.stream)


def ranks_of_this_process(
    access: GpuAccess,
    ranks: Sequence[int],
    streams: Sequence[int],
    *,
    first: int = layout.FIRST_NUMBER,
    patience_s: float = 60.0,
    notice_s: float = 60.0,
) -> list[OneRank]:
    """The ranks of a group. ``first``: number of their first sum. Memory is kept."""
    driver = access.driver
    loaded = access.kernel()
    found = []
    with driver.in_primary_context(access.number):
        inboxes = [driver.allocate(layout.inbox_bytes(len(ranks))) for _ in ranks]
        for place, stream in enumerate(streams):
            state = torch.zeros(layout.STATE_WORDS, dtype=torch.int32, device=access.device)
            state[0] = ctypes.c_int32(first).value
            host = driver.allocate_pinned(4 * layout.HOST_WORDS)
            words = layout.setup_words(
                place,
                inboxes,
                state.data_ptr(),
                host.device,
                patience_s=patience_s,
                notice_s=notice_s,
            )
            group = driver.allocate(len(words))
            driver.copy_to_device(group, words)
            sums = PeerSums(ranks, loaded, group, state, host.host)
            found.append(OneRank(sums, stream, state))
        driver.synchronize()
    return found
