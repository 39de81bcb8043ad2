"""What lies where in memory that GPUs and the host share, and how sums are numbered. Pure."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SLOT_BYTES = 16
ROW_SLOTS = 4104
"""The key, and 4,103 values: the 2·2,048 + 1 of ResNet's widest layers, and some. Longer vectors
go in pieces."""
LONGEST = ROW_SLOTS - 1
"""Values that one sum takes."""
HALVES = 2

FIRST_NUMBER = 2
"""An empty slot says 0."""
LAST_NUMBER = 0xFFFF_FFFF
"""Odd, and FIRST_NUMBER even: where numbers begin anew, halves go on by turns."""

THREADS = 512
"""Of a block; a thread for each slot."""

STATE_WORDS = 4
"""On the device, 32 bits each: number of the next sum, blocks that are done, whether a sum was
lost, and one that is not used."""
LOST = 2
"""Which of them."""


def next_number(number: int) -> int:
    """Of the sum after sum ``number``."""
    return FIRST_NUMBER if number == LAST_NUMBER else number + 1


def half_of(number: int) -> int:
    """Which half of the inboxes a sum goes into."""
    return number % HALVES


def inbox_bytes(ranks: int) -> int:
    """Size of one rank's inbox."""
    return HALVES * ranks * ROW_SLOTS * SLOT_BYTES


def key_of(name: str, length: int) -> int:
    """32 bits that tell sums apart: float64 vectors of this name and length."""
    return zlib.crc32(f"{name} {length} float64".encode())


def pieces_of(length: int) -> list[tuple[int, int]]:
    """Where each piece of a vector begins, and how long it is."""
    return [(start, min(LONGEST, length - start)) for start in range(0, length, LONGEST)]


def setup_words(
    rank: int,
    inboxes: Sequence[int],
    state: int,
    host: int,
    *,
    patience_s: float,
    notice_s: float,
) -> bytes:
    """What the kernel is told of its group, 64 bits each.

    Args:
        rank: this one's place in the group.
        inboxes: address of each rank's, as this process's GPU sees it.
        state: address of STATE_WORDS.
        host: address of HOST_WORDS.
        patience_s: a sum that takes longer is lost: for where no watchdog gives it up before.
        notice_s: a sum that takes longer is told to the host.
    """
    times = (round(patience_s * 1e9), round(notice_s * 1e9))
    head = (rank, len(inboxes), ROW_SLOTS, *times, state, host)
    return struct.pack(f"<{len(head) + len(inboxes)}Q", *head, *inboxes)


HOST_WORDS = 16
"""In pinned memory, 32 bits each: 0 to 5 a sum that was lost, 8 a request to give up, 12 to 15 a
sum that takes long. The kernel writes the first of each last."""
GIVE_UP = 8
"""Which of them the host writes."""
_LOST_AT, _WAITS_AT = 0, 12

Fate = Literal["late", "another", "given up"]
_FATES: dict[int, Fate] = {1: "late", 2: "another", 3: "given up"}


@dataclass(frozen=True)
class LostSum:
    """The first sum that this rank's GPU did not get; later ones are not tried."""

    fate: Fate
    """``late``: a part did not come in time. ``another``: a rank sums something else.
    ``given up``, as the host asked."""
    peer: int
    """Place in the group of the rank whose part it is about."""
    key: int
    """This rank's, :func:`key_of`."""
    length: int
    """Values of this rank's."""
    peer_key: int
    peer_length: int
    """The other's, where it sums something else; else 0."""


@dataclass(frozen=True)
class LongSum:
    """A sum that this rank's GPU waits in for longer than it takes."""

    number: int
    peer: int
    """Place in the group of a rank that has not come to it."""
    key: int
    length: int
    """Number of values."""


def read_lost(words: Sequence[int]) -> LostSum | None:
    """From HOST_WORDS; None: no sum was lost."""
    code, *found = words[_LOST_AT : _LOST_AT + 6]
    return LostSum(_FATES[code], *found) if code else None


def read_long(words: Sequence[int]) -> LongSum | None:
    """From HOST_WORDS; None: no sum takes long."""
    number, peer, key, length = words[_WAITS_AT : _WAITS_AT + 4]
    return LongSum(number, peer, key, length) if number else None
