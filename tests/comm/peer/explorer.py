"""Every way in which the ranks of a group can come through a few sums, on a model of the protocol.

Two ranks, a few elements, each with a thread of its own on either side, as in the kernel. What a
thread writes is under way for as long as it likes, and the parts of it arrive in any order; what it
reads of a slot it reads a word at a time, in any order. A rank begins its next sum when all its
threads have ended the last one, as kernels on a stream do.

The explorer goes through all reachable states, once each. A fault is a thread that takes a part for
what it is not, or a state in which nobody can go on. One thing is left out, which changes neither:
a thread that reads a word with another number looks again, so that its reading leaves no trace.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from megdet_hvd.comm.peer.layout import FIRST_NUMBER, HALVES, next_number

Word = tuple[int, int]
"""(flag, whose data): the number of the sum that the flag says, and the sum's index from 0 whose
data it holds; -1 where it holds none."""
EMPTY: Word = (0, -1)


@dataclass(frozen=True)
class Protocol:
    """The protocol, and what may be wrong with it."""

    halves: int = HALVES
    flag_in_data: bool = True
    """Each word has the flag. False: the first word has it, the second the data."""
    in_order: bool = False
    """What a thread writes arrives in that order, and it reads the first word first; with a flag
    of its own, the order that matters is ``flag_first``."""
    flag_first: bool = True
    """Where there is a flag of its own: whether it is written before the data."""
    first: int = FIRST_NUMBER
    next_number: Callable[[int], int] = next_number
    sums: int = 4
    elements: int = 2


class Thread(NamedTuple):
    """One element's, on one rank, in the current sum."""

    done: bool
    seen: tuple[Word | None, Word | None]
    """What it has read of the slot in this look at it."""


class State(NamedTuple):
    """All there is."""

    at: tuple[int, int]
    """Index of the sum that each rank is in."""
    threads: tuple[tuple[Thread, ...], tuple[Thread, ...]]
    inboxes: tuple[tuple[tuple[Word, Word], ...], ...]
    """[rank][half · elements + element], the slot of the one sender there is."""
    under_way: tuple[tuple[int, int, int, Word], ...]
    """(rank whose inbox, slot, which word, what), in the order of their writing."""


FRESH = Thread(False, (None, None))


@dataclass(frozen=True)
class Found:
    """What an exploration came to."""

    states: int
    fault: str | None
    """The first fault; None: there is none, and all states have been seen."""


def explore(protocol: Protocol, most: int = 2_000_000) -> Found:
    """Go through all states, or up to the first fault."""
    numbers = [protocol.first]
    while len(numbers) < protocol.sums:
        numbers.append(protocol.next_number(numbers[-1]))
    slots = tuple(((EMPTY, EMPTY),) * (protocol.halves * protocol.elements) for _ in (0, 1))
    start = State((0, 0), ((FRESH,) * protocol.elements,) * 2, slots, ())
    start = _begin(protocol, numbers, _begin(protocol, numbers, start, 0), 1)
    seen, ahead = {start}, [start]
    while ahead:
        state = ahead.pop()
        moved = False
        for following in _steps(protocol, numbers, state):
            if isinstance(following, str):
                return Found(len(seen), following)
            moved |= following != state
            if following not in seen:
                seen.add(following)
                ahead.append(following)
        if not moved and state.at != (protocol.sums, protocol.sums):
            return Found(len(seen), f"nobody can go on: the ranks are in sums {state.at}")
        assert len(seen) <= most, "too many states to be gone through"
    return Found(len(seen), None)


def _slot(protocol: Protocol, number: int, element: int) -> int:
    return number % protocol.halves * protocol.elements + element


def _begin(protocol: Protocol, numbers: list[int], state: State, rank: int) -> State:
    """Rank ``rank`` starts the kernel of its next sum: its parts are on their way."""
    index = state.at[rank]
    if index == protocol.sums:
        return state
    number = numbers[index]
    sent = list(state.under_way)
    for element in range(protocol.elements):
        slot = _slot(protocol, number, element)
        if protocol.flag_in_data:
            parts = [(0, (number, index)), (1, (number, index))]
        else:
            parts = [(0, (number, -1)), (1, (0, index))]
            parts = parts if protocol.flag_first else parts[::-1]
        sent += [(1 - rank, slot, which, word) for which, word in parts]
    return state._replace(under_way=tuple(sent))


def _steps(protocol: Protocol, numbers: list[int], state: State) -> Iterator[State | str]:
    yield from _arrivals(protocol, state)
    for rank in (0, 1):
        if state.at[rank] == protocol.sums:
            continue
        for element in range(protocol.elements):
            yield from _looks(protocol, numbers, state, rank, element)


def _arrivals(protocol: Protocol, state: State) -> Iterator[State]:
    """One of the words under way arrives. Two to one place arrive in the order of their writing."""
    places = set()
    for position, (rank, slot, which, word) in enumerate(state.under_way):
        place = (rank, slot) if protocol.in_order else (rank, slot, which)
        if place in places:
            continue
        places.add(place)
        inbox = list(state.inboxes[rank])
        words = inbox[slot]
        inbox[slot] = (word, words[1]) if which == 0 else (words[0], word)
        inboxes = tuple(tuple(inbox) if r == rank else state.inboxes[r] for r in (0, 1))
        rest = state.under_way[:position] + state.under_way[position + 1 :]
        yield state._replace(inboxes=inboxes, under_way=rest)


def _looks(
    protocol: Protocol, numbers: list[int], state: State, rank: int, element: int
) -> Iterator[State | str]:
    """A thread reads one more word of its slot; with both, it knows whether its part is there."""
    thread = state.threads[rank][element]
    if thread.done:
        return
    index = state.at[rank]
    number = numbers[index]
    slot = state.inboxes[rank][_slot(protocol, number, element)]
    unread = [which for which in (0, 1) if thread.seen[which] is None]
    for which in unread[:1] if protocol.in_order else unread:
        if (protocol.flag_in_data or which == 0) and slot[which][0] != number:
            continue
        seen = (slot[0], thread.seen[1]) if which == 0 else (thread.seen[0], slot[1])
        first, second = seen
        if first is None or second is None:
            yield _with(state, rank, element, Thread(False, seen))
            continue
        data = (first[1], second[1]) if protocol.flag_in_data else (second[1],)
        if any(whose != index for whose in data):
            yield f"rank {rank} takes data of sum {data} for that of sum {index}"
            return
        after = _with(state, rank, element, Thread(True, (None, None)))
        if all(own.done for own in after.threads[rank]):
            threads = tuple(
                (FRESH,) * protocol.elements if r == rank else after.threads[r] for r in (0, 1)
            )
            at = tuple(i + (r == rank) for r, i in enumerate(after.at))
            after = after._replace(at=at, threads=threads)  # type: ignore[arg-type]
            after = _begin(protocol, numbers, after, rank)
        yield after


def _with(state: State, rank: int, element: int, thread: Thread) -> State:
    threads = tuple(
        tuple(thread if (r, e) == (rank, element) else old for e, old in enumerate(row))
        for r, row in enumerate(state.threads)
    )
    return state._replace(threads=threads)  # type: ignore[arg-type]
