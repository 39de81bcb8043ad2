"""A campaign drawn by a seed: chains of attempts, each of which suffers faults. Pure."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tests.faults.kinds import KINDS, Kind, Program

Launcher = Literal["mpirun", "gloo", "python"]

CHAIN_FAULTS = (4, 8)
"""A chain suffers so many at least and at most."""
STEPS_APART = 2
"""Faults of one attempt come so many steps after each other."""

LAST = "evaluator killed"
"""Training goes on without it, to the end of the run: nothing can come after."""


@dataclass(frozen=True)
class Fault:
    """One fault."""

    kind: str
    rank: int
    moment: str
    after_steps: int
    """Steps that the attempt has begun when it comes, or is armed for its moment."""
    draw: int
    """What is left to chance within the kind."""


@dataclass(frozen=True)
class Chain:
    """A run, started again and again."""

    number: int
    program: Program
    launcher: Launcher
    ranks: int
    attempts: tuple[tuple[Fault, ...], ...]
    """The faults of each start, in the order of their steps; a last start has none."""

    @property
    def faults(self) -> int:
        """How many there are."""
        return sum(len(faults) for faults in self.attempts)

    def to_plain(self) -> dict[str, Any]:
        """For a report."""
        return asdict(self)


def draw_campaign(seed: int, faults: int) -> list[Chain]:
    """Chains with at least ``faults`` faults in all; the same for the same seed."""
    draw = random.Random(seed)
    chains: list[Chain] = []
    left: list[str] = []
    while sum(chain.faults for chain in chains) < faults:
        chains.append(_chain(draw, len(chains), left))
    return chains


def _chain(draw: random.Random, number: int, left: list[str]) -> Chain:
    programs: Sequence[tuple[Program, Launcher, int]] = (
        ("train", "mpirun", 2),
        ("pipeline", "mpirun", 3),
        ("train", "gloo", 2),
        ("train", "python", 1),
    )
    program, launcher, ranks = programs[number % len(programs)]
    wanted = draw.randint(*CHAIN_FAULTS)
    attempts: list[tuple[Fault, ...]] = []
    done = 0
    while done < wanted:
        allowed = [
            kind
            for kind in _kinds(program, ranks, first=not attempts)
            if kind.name != LAST or done >= CHAIN_FAULTS[0] - 1
        ]
        faults = _attempt(draw, program, ranks, wanted - done, allowed, left)
        attempts.append(faults)
        done += len(faults)
        if faults[-1].kind == LAST:
            break
    return Chain(number, program, launcher, ranks, tuple(attempts))


def _attempt(
    draw: random.Random,
    program: Program,
    ranks: int,
    room: int,
    kinds: Sequence[Kind],
    left: list[str],
) -> tuple[Fault, ...]:
    """Up to three faults that end nothing, and one that ends the attempt."""
    going = [kind for kind in kinds if not kind.ends]
    ending = [kind for kind in kinds if kind.ends]
    chosen: list[Kind] = []
    for _ in range(min(room - 1, draw.randint(1, 3))):
        fitting = [kind for kind in going if _fit([*chosen, kind])]
        chosen.append(_pick(draw, fitting, left))
    last = [kind for kind in ending if _fit([*chosen, kind])]
    if last:
        chosen.append(_pick(draw, last, left))
    if chosen[-1].moments == ("start",):  # nothing else would come to happen
        chosen = chosen[-1:]
    faults, step = [], 0
    for kind in chosen:
        moment = draw.choice(
            [
                moment
                for moment in kind.moments
                if (moment != "start" or len(chosen) == 1)
                # Who evaluates in a pipeline is an evaluator, and its death a kind of its own.
                and (program, kind.name, moment) != ("pipeline", "kill", "evaluation")
            ]
        )
        if moment not in ("before", "start"):
            step += draw.randint(1, STEPS_APART)
        # Trainers come first; what is evaluated is evaluated by the last rank of a pipeline.
        trainers = ranks - 1 if program == "pipeline" else ranks
        rank = 0 if kind.main_rank or moment == "checkpoint" else draw.randrange(trainers)
        if program == "pipeline" and moment == "evaluation" and not kind.main_rank:
            rank = ranks - 1
        faults.append(Fault(kind.name, rank, moment, step, draw.randrange(2**31)))
        if kind.name == "full disk" or moment in ("evaluation", "checkpoint"):
            step += 4  # until there is room again, or until it has come to that
    return tuple(faults)


def _kinds(program: Program, ranks: int, first: bool) -> list[Kind]:
    trainers = ranks - 1 if program == "pipeline" else ranks
    return [
        kind
        for kind in KINDS
        if program in kind.programs
        and trainers >= kind.ranks
        and not (first and (kind.moments == ("before",) or kind.name == "unreadable checkpoint"))
    ]


def _pick(draw: random.Random, kinds: Sequence[Kind], left: list[str]) -> Kind:
    """Any, by weight, but kinds that have not come yet first."""
    if not left:
        left += [kind.name for kind in KINDS for _ in range(kind.weight)]
    fitting = [kind for kind in kinds if kind.name in left]
    names = [name for name in left if name in {kind.name for kind in fitting}]
    if not names:
        return draw.choice(list(kinds))
    name = draw.choice(names)
    left.remove(name)
    return next(kind for kind in kinds if kind.name == name)


def _fit(kinds: Sequence[Kind]) -> bool:
    """Whether one attempt can suffer them all: settings agree, and each comes once."""
    names = [kind.name for kind in kinds]
    settings: dict[str, str] = {}
    for kind in kinds:
        for setting in kind.settings:
            key, _, value = setting.partition("=")
            if settings.setdefault(key, value) != value:
                return False
    return len(set(names)) == len(names)
