"""How a loader process hands its steps over: pictures through memory that both sides keep mapped.

Shared memory that is made anew for each batch costs as much as decoding its pictures does: the
kernel clears every page of it, on both sides, and each tensor takes a file descriptor of its own
along. So a worker makes it once, for as many steps as may be under way, lays pictures there as it
loads them, and sends a reference; whoever takes the step out of the pipe copies them, into pinned
memory where a GPU is to fetch them. What is small goes through the pipe by value.

Nobody has to say when memory is free again: a worker is asked for step k only once its step
k - `STEPS_AHEAD` was taken, and so was copied.
"""

import io
import math
import pickle
from collections.abc import Mapping, Set
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch import Tensor

from megdet_hvd.data.room import Room

PieceKey = tuple[int, int]
"""Of a piece of shared memory: the step's turn, and which piece of that step's it is."""


class Sender:
    """A worker's end: gives room in shared memory, and packs steps up that lie there."""

    def __init__(self, steps_ahead: int) -> None:
        """``steps_ahead``: how many steps may have been loaded, and not yet taken out."""
        self._turns = steps_ahead
        self._turn, self._taken = -1, 0
        self._pieces: dict[PieceKey, Tensor] = {}
        self._told: set[PieceKey] = set()  # the other end has these
        self._problem: str | None = None

    def begin(self) -> None:
        """The next step: what lay in its turn's memory has been taken out."""
        self._turn, self._taken = (self._turn + 1) % self._turns, 0

    def room(self, size: int) -> Tensor:
        """So many bytes in shared memory, (n,) uint8; elsewhere where that has no room."""
        key = self._turn, self._taken
        piece = self._pieces.get(key)
        if piece is None or len(piece) < size:
            piece = self._make(key, size)
            if piece is None:
                return torch.empty(size, dtype=torch.uint8)
        self._taken += 1
        return piece[:size]

    def _make(self, key: PieceKey, size: int) -> Tensor | None:
        if self._problem is None:  # asking again would leave one more dead file in /dev/shm
            try:
                self._pieces[key] = piece = _shared(size)
            except (RuntimeError, OSError) as error:
                self._problem = str(error)
            else:
                self._told.discard(key)
                return piece
        return None

    def packed(self, step: Any) -> bytes:
        """A step as bytes. Why it goes through the pipe by value, if it does, is told with it.

        Raises:
            RuntimeError, OSError: the memory itself can't be handed over.
            Exception: the step holds what can't be pickled.
        """
        packer = _Packer(self._pieces, self._told)
        packer.dump((step, self._problem))
        self._told |= packer.told
        return packer.file.getvalue()


def _shared(size: int) -> Tensor:
    storage: torch.UntypedStorage = torch.UntypedStorage._new_shared(size)
    return torch.empty(0, dtype=torch.uint8).set_(storage)


class _Packer(ForkingPickler):
    """Pickles tensors as references into shared memory, or by value."""

    def __init__(self, pieces: Mapping[PieceKey, Tensor], known: Set[PieceKey]) -> None:
        """``known``: pieces that the other end has; others are handed over with a reference."""
        self.file = io.BytesIO()
        super().__init__(self.file, pickle.HIGHEST_PROTOCOL)
        self._pieces, self._known = pieces, known
        self.told: set[PieceKey] = set()
        """Those that were."""

    def persistent_id(self, value: Any) -> Any:
        if type(value) is not Tensor or any(value is piece for piece in self._pieces.values()):
            return None  # pickled as torch does it: a piece with its file descriptor
        if value.device.type != "cpu" or value.requires_grad or value.dtype == torch.bfloat16:
            return None
        key = self._key_of(value)
        if key is None:
            return value.numpy()
        known = key in self._known or key in self.told
        self.told.add(key)
        return key, None if known else self._pieces[key], tuple(value.shape), value.stride()

    def _key_of(self, value: Tensor) -> PieceKey | None:
        """The piece that a tensor lies in, from its start on, without gaps."""
        if value.dtype != torch.uint8 or not value.numel() or not _is_dense(value):
            return None
        start = value.data_ptr()
        return next((k for k, piece in self._pieces.items() if piece.data_ptr() == start), None)


def _is_dense(value: Tensor) -> bool:
    """Whether a tensor's values fill its memory, in whatever order of its dimensions."""
    order = sorted(range(value.dim()), key=value.stride, reverse=True)
    return value.permute(order).is_contiguous()


class Receiver:
    """The other end of a worker's pipe."""

    def __init__(self, room: Room | None = None) -> None:
        """``room``: gives the memory that pictures are copied into; None: plain memory."""
        self._room = room
        self._pieces: dict[PieceKey, Tensor] = {}

    def take(self, pipe: Connection) -> tuple[Any, str | None]:
        """The next step, and why it came by value; waits for it.

        Raises:
            EOFError, OSError: nothing more comes.
        """
        found: tuple[Any, str | None] = _Unpacker(self, pipe.recv_bytes()).load()
        return found

    def copied(
        self, key: PieceKey, piece: Tensor | None, shape: tuple[int, ...], stride: tuple[int, ...]
    ) -> Tensor:
        """A picture's bytes out of shared memory."""
        if piece is not None:
            self._pieces[key] = piece
        size = math.prod(shape)
        own = torch.empty(size, dtype=torch.uint8) if self._room is None else self._room(size)
        return own.copy_(self._pieces[key][:size]).as_strided(shape, stride)


class _Unpacker(pickle.Unpickler):
    def __init__(self, receiver: Receiver, message: bytes) -> None:
        super().__init__(io.BytesIO(message))
        self._receiver = receiver

    def persistent_load(self, pid: Any) -> Any:
        return self._receiver.copied(*pid) if isinstance(pid, tuple) else torch.from_numpy(pid)
