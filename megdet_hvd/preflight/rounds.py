"""Who exchanges with whom, in which round, so that every machine has several links measured."""

import math
from collections.abc import Sequence

_LEAST = 3
"""Rounds, where there are so many: a slow machine must be slow with several others."""


def tournament(count: int) -> list[list[tuple[int, int]]]:
    """Rounds of disjoint pairs of 0…count-1, as in a round-robin tournament (circle method).

    In each round everybody has a partner (all but one, where ``count`` is odd), and nobody meets
    the same partner twice. All rounds of a few, and ⌈log₂ count⌉ evenly spread ones of many.
    """
    if count < 2:
        return []
    even = count + count % 2
    rounds = []
    for turn in range(even - 1):
        seats = [0, *(1 + (seat + turn) % (even - 1) for seat in range(even - 1))]
        pairs = [(seats[i], seats[even - 1 - i]) for i in range(even // 2)]
        rounds.append([(min(p), max(p)) for p in pairs if max(p) < count])
    wanted = min(len(rounds), max(_LEAST, math.ceil(math.log2(count))))
    return [rounds[i * len(rounds) // wanted] for i in range(wanted)]


def between_machines(machines: Sequence[Sequence[int]]) -> list[list[tuple[int, int]]]:
    """Rounds of pairs of ranks: each machine with another, all their local ranks at once."""
    return [
        [pair for a, b in pairs for pair in zip(machines[a], machines[b], strict=False)]
        for pairs in tournament(len(machines))
    ]


def within_machines(machines: Sequence[Sequence[int]]) -> list[list[tuple[int, int]]]:
    """Rounds of pairs of ranks of the same machine, all machines at once."""
    each = [tournament(len(ranks)) for ranks in machines]
    return [
        [
            (ranks[a], ranks[b])
            for ranks, rounds in zip(machines, each, strict=True)
            if turn < len(rounds)
            for a, b in rounds[turn]
        ]
        for turn in range(max(map(len, each), default=0))
    ]
