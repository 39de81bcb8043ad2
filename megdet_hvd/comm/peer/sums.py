"""Sums of one rank with the other GPUs of its group: puts them on a stream, and never waits."""

import ctypes
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from megdet_hvd.comm.peer.layout import (
    GIVE_UP,
    HOST_WORDS,
    LONGEST,
    LOST,
    THREADS,
    LongSum,
    LostSum,
    key_of,
    pieces_of,
    read_long,
    read_lost,
)
from megdet_hvd.cuda.launch import INT32, POINTER, CudaKernel
from megdet_hvd.errors import UserError

ARGUMENTS = (POINTER, INT32, ctypes.c_uint32, POINTER)
"""Of the kernel: vector, length, key, what it is told of its group."""
NOTICE_S = 1.0
"""A sum that takes longer is told to the host, for the watchdog."""
PATIENCE_S = 24 * 3600.0
"""After so long a sum is lost by itself. Whoever watches gives it up long before, and a batch
system may stop a whole job for hours."""


class _Piece(NamedTuple):
    """What one launch sums."""

    offset: int
    """Bytes into the vector."""
    length: int
    blocks: int
    key: int


class PeerSums:
    """The sums of one rank. All ranks of the group call :meth:`add_up` in the same order."""

    def __init__(
        self,
        ranks: Sequence[int],
        kernel: CudaKernel,
        group: int,
        state: Tensor,
        host: int,
    ) -> None:
        """What it works with must live as long as it does.

        Args:
            ranks: the group's, global.
            kernel: that of :mod:`megdet_hvd.comm.peer.kernel`, on this rank's GPU.
            group: address there of :func:`megdet_hvd.comm.peer.layout.setup_words`.
            state: (STATE_WORDS,) int32 on the device.
            host: address of HOST_WORDS in pinned memory.
        """
        self.ranks = tuple(ranks)
        self._kernel = kernel
        self._group = group
        self._state = state
        self._host = (ctypes.c_uint32 * HOST_WORDS).from_address(host)
        self._pieces: dict[tuple[str, int], list[_Piece]] = {}
        self._names: dict[int, str] = {}
        self._long: LongSum | None = None
        self._since = 0.0

    def add_up(self, vector: Tensor, name: str, stream: int | None = None) -> None:
        """Put it on a stream that ``vector`` becomes its sum over the group; returns at once.

        ``vector`` is contiguous float64 on this rank's GPU. ``stream`` None: torch's current one.
        Where a sum is lost (:meth:`lost`), this one and all later ones are nan.
        """
        if vector.device != self._state.device or vector.dtype != torch.float64:
            raise UserError(
                f"bn.carrier=peer sums float64 on {self._state.device}, and {name} is "
                f"{vector.dtype} on {vector.device}: set bn.carrier=horovod"
            )
        assert vector.is_contiguous(), "one address and a length say where it is"
        length = vector.numel()
        pieces = self._pieces.get((name, length))
        if pieces is None:
            pieces = self._pieces[name, length] = self._cut(name, length)
        address = vector.data_ptr()
        for offset, size, blocks, key in pieces:
            self._kernel(blocks, THREADS, address + offset, size, key, self._group, stream=stream)

    def _cut(self, name: str, length: int) -> list[_Piece]:
        pieces = []
        for start, size in pieces_of(length):
            told = name if length <= LONGEST else f"{name}[{start}:{start + size}]"
            key = key_of(told, size)
            self._names[key] = told
            pieces.append(_Piece(8 * start, size, size // THREADS + 1, key))
        return pieces

    def is_lost(self) -> Tensor:
        """() bool on the device: whether a sum before this point of the stream was lost."""
        return self._state[LOST] != 0

    def lost(self) -> str | None:
        """Why the GPU has lost a sum, as far as it has told; None: it has lost none.

        Asks no device: it may be called at any time, from any thread.
        """
        found = read_lost(list(self._host))
        return None if found is None else self._words(found)

    def long_sum(self) -> tuple[str, int, float] | None:
        """The sum that the GPU waits in for more than NOTICE_S; as :meth:`lost`.

        Returns:
            Its name, its length, and since when, by ``time.monotonic()``; None: there is none.
        """
        found = read_long(list(self._host))
        if found is None or read_long(list(self._host)) != found:
            return None  # it is just being written, or over
        if found != self._long:
            self._long, self._since = found, time.monotonic() - NOTICE_S
        return self._name(found.key), found.length, self._since

    def give_up(self) -> None:
        """Let the GPU leave the sum that it waits in, and all later ones; as :meth:`lost`."""
        self._host[GIVE_UP] = 1

    def _name(self, key: int) -> str:
        return self._names.get(key, "a vector that this one never sums")

    def _words(self, lost: LostSum) -> str:
        own, peer = self._name(lost.key), self.ranks[lost.peer]
        if lost.fate == "another":
            return (
                f"the GPUs do not sum the same thing: this one sums {own} ({lost.length} values), "
                f"that of rank {peer} {self._name(lost.peer_key)} ({lost.peer_length}); every rank "
                "must run the same BN layers in the same order"
            )
        if lost.fate == "late":
            return f"the sum {own} was lost: the part of rank {peer} did not come"
        return f"the sum {own} was given up while it waited for the part of rank {peer}"
