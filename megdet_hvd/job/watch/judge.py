"""From where all ranks stand to whether the job hangs, and who is to blame. Pure.

A rank that waits long proves nothing: another may be busy for a good reason, on another machine
even. So each wait is followed to whoever it waits for. It is a hang where that ends at a rank
that can't come (dead, silent, left, far too long at something), in a cycle of ranks that wait
for one another, or at nobody: all are there, and nothing moves.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from megdet_hvd.grouping import grouped
from megdet_hvd.job.watch.rank_state import NEVER_HEARD, RankState
from megdet_hvd.wording import ranks_in_words

STUCK_COMPUTING = 10
"""Limits that a rank may compute between two collectives while others wait for it: kernels are
compiled and tuned in the first step, and a machine that swaps is slow, yet alive."""
STUCK_OUTSIDE = 30
"""Limits that a rank may be waited for while it is outside of steps: scoring a whole validation
set, rendering or reading a data set for the others and writing to a slow disk take minutes. The
same for a step that nobody waits for: without BN messages a forward pass on a CPU may be one long
piece. A GPU that hangs shows at the step's end, where all ranks wait for theirs."""
GRACE_S = 10.0
"""A connection that closed may come back; and the launcher ends the others of a dead rank."""
AHEAD_STEPS = 2
"""A step ends with a sum over all ranks, so the others get one step ahead of a stopped rank at
most: if they get further, it goes on unheard, and only its connection is broken."""


@dataclass(frozen=True)
class Wait:
    """A collective that does not end."""

    name: str
    ranks: tuple[int, ...]
    here: tuple[int, ...]
    """Ranks that wait in it."""
    missing: tuple[int, ...]
    """Ranks that it needs and that are not in it."""
    since_s: float


@dataclass(frozen=True)
class Verdict:
    """The job hangs."""

    culprits: Mapping[int, str]
    """What is wrong with each; empty: all ranks are there, and nothing moves."""
    waits: tuple[Wait, ...]
    """Where others wait, longest first."""


def judge(states: Mapping[int, RankState], limit_s: float) -> Verdict | None:
    """The verdict on a job; None: it lives, or nobody can tell yet.

    ``states`` holds the ranks of which anything is known; others count as never heard of.
    """
    if not _suspicious(states, limit_s):
        return None
    waiting = {
        rank: state
        for rank, state in states.items()
        if state.kind == "waiting" and _gone(state, limit_s) is None and state.link == "open"
    }
    patient = {rank: own for rank, own in waiting.items() if own.age_s >= limit_s}
    missing = {
        rank: tuple(
            other
            for other in own.ranks
            if other != rank and not _with(own, states.get(other, NEVER_HEARD), limit_s)
        )
        for rank, own in waiting.items()
    }
    culprits: dict[int, str] = {}
    for rank, own in patient.items():
        for other in missing[rank]:
            reason = _why_it_will_not_come(states.get(other, NEVER_HEARD), own.age_s, limit_s)
            if reason is not None:
                culprits[other] = reason
    for rank, state in states.items():
        reason = _gone(state, limit_s)
        if reason is not None and state.others_went < AHEAD_STEPS:
            culprits[rank] = reason
        elif reason is None and _stuck_in_step(state, STUCK_OUTSIDE * limit_s):
            culprits[rank] = _no_collective(state)
    graph = {rank: [other for other in missing[rank] if other in patient] for rank in patient}
    for cycle in _cycles(graph):
        culprits.update(_disagreement(cycle, patient, missing))
    if culprits:
        return Verdict(dict(sorted(culprits.items())), _waits(waiting, missing, set(culprits)))
    complete = [own for rank, own in patient.items() if not missing[rank]]
    if any(all(other in patient for other in own.ranks) for own in complete):
        return Verdict({}, _waits(patient, missing, None))
    return None


def _suspicious(states: Mapping[int, RankState], limit_s: float) -> bool:
    """Whether anything is worth a closer look: this runs every second beside the training."""
    return any(
        (state.kind == "waiting" and state.age_s >= limit_s)
        or _stuck_in_step(state, STUCK_OUTSIDE * limit_s)
        or (state.link != "never" and state.silent_s >= min(limit_s, GRACE_S))
        for state in states.values()
    )


def _stuck_in_step(state: RankState, after_s: float) -> bool:
    return state.link == "open" and state.kind == "computing" and state.age_s >= after_s


def _gone(state: RankState, limit_s: float) -> str | None:
    """Why a rank gives no sign of life; None where it does, or may yet."""
    if state.link == "closed" and state.silent_s >= min(limit_s, GRACE_S):
        return "its process has ended"
    if state.link == "open" and state.silent_s >= limit_s:
        return (
            f"no sign of life for {state.silent_s:.0f} s: stopped, swapping, or its machine is gone"
        )
    return None


def _with(own: RankState, other: RankState, limit_s: float) -> bool:
    """Whether ``other`` waits in the same collective, with a vector that fits."""
    return (
        other.link == "open"
        and _gone(other, limit_s) is None
        and other.kind == "waiting"
        and (other.name, other.ranks) == (own.name, own.ranks)
        and (other.elements == own.elements or not other.elements or not own.elements)
    )


def _why_it_will_not_come(state: RankState, awaited_s: float, limit_s: float) -> str | None:
    """Why a rank that has been waited for will never come; None where it may."""
    if state.link == "left":
        return "it has left the job in order, and the others wait for it"
    if state.link == "never":
        if awaited_s < STUCK_OUTSIDE * limit_s:
            return None
        return "nothing is known of it: it has no connection to rank 0"
    gone = _gone(state, limit_s)
    if gone is not None or state.link == "closed":
        return gone
    if _stuck_in_step(state, STUCK_COMPUTING * limit_s):
        return _no_collective(state)
    if state.kind == "outside" and state.age_s >= STUCK_OUTSIDE * limit_s:
        return f"busy for {state.age_s:.0f} s with: {state.name}"
    return None


def _no_collective(state: RankState) -> str:
    return f"has not come to its next collective for {state.age_s:.0f} s"


def _cycles(graph: Mapping[int, list[int]]) -> list[tuple[int, ...]]:
    """Groups of ranks each of which waits for every other, directly or through others."""
    reached = {rank: _reach(graph, rank) for rank in graph}
    cycles = {
        tuple(sorted(other for other in reached[rank] if rank in reached[other]))
        for rank in graph
        if rank in reached[rank]
    }
    return sorted(cycles)


def _reach(graph: Mapping[int, list[int]], start: int) -> set[int]:
    found: set[int] = set()
    ahead = list(graph[start])
    while ahead:
        rank = ahead.pop()
        if rank not in found:
            found.add(rank)
            ahead += graph[rank]
    return found


def _disagreement(
    cycle: tuple[int, ...],
    patient: Mapping[int, RankState],
    missing: Mapping[int, tuple[int, ...]],
) -> dict[int, str]:
    """Who of a cycle stands apart: those outside its majority; all, where there is none."""

    def place(rank: int) -> tuple[str, tuple[int, ...], int]:
        return patient[rank].name, patient[rank].ranks, patient[rank].elements

    largest = max(grouped(cycle, place).values(), key=len)
    apart = [r for r in cycle if r not in largest] if 2 * len(largest) > len(cycle) else cycle
    return {
        rank: f"waits in {patient[rank].name}{_length(patient[rank])} "
        f"for {ranks_in_words(missing[rank])}, which {_is(missing[rank])} elsewhere"
        for rank in apart
    }


def _length(state: RankState) -> str:
    return f" with {state.elements} values" if state.elements else ""


def _is(ranks: tuple[int, ...]) -> str:
    return "are" if len(ranks) > 1 else "is"


def _waits(
    waiting: Mapping[int, RankState],
    missing: Mapping[int, tuple[int, ...]],
    wanted: set[int] | None,
) -> tuple[Wait, ...]:
    """The collectives that lack any of the ``wanted``; None: those that lack nobody."""
    chosen = [
        rank
        for rank in sorted(waiting)
        if (not missing[rank] if wanted is None else wanted & set(missing[rank]))
    ]
    groups = grouped(chosen, lambda rank: (waiting[rank].name, waiting[rank].ranks, missing[rank]))
    waits = [
        Wait(name, ranks, tuple(here), absent, max(waiting[rank].age_s for rank in here))
        for (name, ranks, absent), here in groups.items()
    ]
    return tuple(sorted(waits, key=lambda wait: -wait.since_s))
