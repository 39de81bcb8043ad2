"""Where the time of a training step goes, over all ranks: computing, messages, waiting for whom.

A rank in a collective waits for the last to come, and then for the message. So of one collective
the *last* rank's time is the message's, and what the others spend beyond it is waiting, for that
rank. On a GPU the times are the host's: what it does not wait for is not in them, and at the step's
end, where it waits for all of the GPU's work, that counts as computing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from megdet_hvd.comm.position import CollectiveTime
from megdet_hvd.engine.step.status import DEVICE
from megdet_hvd.job.exchange import gather_on_main
from megdet_hvd.job.world import World, machine_names

_BN = "cgbn."
"""How the names of BN messages begin."""
_WORTH_A_WORD = 0.2
"""Of what a rank keeps others waiting: so much longer for its pictures, and they are the reason."""


class StepTimes(NamedTuple):
    """A step as one rank saw it."""

    step_s: float
    """From asking for pictures to new weights."""
    data_s: float
    """Of it, waiting for pictures."""
    waits: Sequence[CollectiveTime]
    """The collectives, in order."""


NO_TIMES = StepTimes(0.0, 0.0, ())


@dataclass(frozen=True)
class TimeSplit:
    """A step's parts, seconds, means over the ranks; they add up to ``step_s``."""

    step_s: float
    compute_s: float
    """All that is in none of the others."""
    bn_s: float
    """BN messages."""
    gradients_s: float
    """What was left to wait for of gradients, and of the step's status, after the backward pass."""
    waiting_s: float
    """For the last rank of each collective."""
    data_s: float
    """Waiting for pictures."""
    slowest: int | None = None
    """The rank that others waited for most; None: nobody waited."""
    slowest_s: float = 0.0
    """How long each of the others did, in the mean."""
    slowest_data_s: float = 0.0
    """How much longer it waited for its pictures than the others did."""

    def as_metrics(self) -> dict[str, float]:
        """For a line of metrics."""
        parts = {
            f"split_{name}": getattr(self, name)
            for name in ("step_s", "compute_s", "bn_s", "gradients_s", "waiting_s", "data_s")
        }
        if self.slowest is None:
            return parts
        return {**parts, "slowest_rank": self.slowest, "slowest_rank_s": self.slowest_s}

    def line(self, world: World) -> str:
        """For the log."""
        parts = (
            f"the last step, {self.step_s:.3f} s: compute {self.compute_s:.3f}, BN messages "
            f"{self.bn_s:.3f}, gradients {self.gradients_s:.3f}, pictures {self.data_s:.3f}, "
            f"waiting for others {self.waiting_s:.3f}"
        )
        if self.slowest is None:
            return parts
        host = _host(self.slowest, world)
        why = ""
        if self.slowest_data_s > _WORTH_A_WORD * self.slowest_s:
            why = f", whose pictures came {self.slowest_data_s:.3f} s later"
        return f"{parts}, most for rank {self.slowest}{host}: {self.slowest_s:.3f} s{why}"


def time_split(times: StepTimes, world: World) -> TimeSplit | None:
    """The split of a step that all ranks have just taken. All of them call it together.

    None on ranks other than 0, who have no use for it.
    """
    own = [[wait.name, min(wait.ranks, default=0), wait.seconds] for wait in times.waits]
    found = gather_on_main([times.step_s, times.data_s, own], world, "time_split")
    if found is None:
        return None
    return split_of(
        [(step_s, data_s, [tuple(one) for one in waits]) for step_s, data_s, waits in found]
    )


def split_of(ranks: Sequence[tuple[float, float, Sequence[tuple[str, int, float]]]]) -> TimeSplit:
    """The split of one step.

    Args:
        ranks: of each rank, in order: seconds of the step, seconds of waiting for pictures, and
            each collective's name, first rank of its group, and seconds.
    """
    count = len(ranks)
    shared: dict[tuple[str, int, int], dict[int, float]] = {}
    for rank, (_, _, waits) in enumerate(ranks):
        seen: dict[tuple[str, int], int] = {}
        for name, first, seconds in waits:
            if name == DEVICE:  # mostly the GPU's own work
                continue
            often = seen[name, first] = seen.get((name, first), 0) + 1
            shared.setdefault((name, first, often), {})[rank] = seconds
    bn = gradients = waiting = 0.0
    owed = [0.0] * count
    """By rank: what the others waited for it."""
    for (name, *_), seconds_of in shared.items():
        message = min(seconds_of.values())
        last = min(seconds_of, key=lambda rank: (seconds_of[rank], rank))
        beyond = sum(seconds_of.values()) - message * len(seconds_of)
        waiting += beyond
        owed[last] += beyond
        if name.startswith(_BN):
            bn += message * len(seconds_of)
        else:
            gradients += message * len(seconds_of)
    step = sum(step_s for step_s, *_ in ranks)
    pictures = [data_s for _, data_s, _ in ranks]
    split = TimeSplit(
        step_s=step / count,
        compute_s=(step - sum(pictures) - bn - gradients - waiting) / count,
        bn_s=bn / count,
        gradients_s=gradients / count,
        waiting_s=waiting / count,
        data_s=sum(pictures) / count,
    )
    if waiting <= 0:
        return split
    slowest = max(range(count), key=lambda rank: owed[rank])
    others = [data_s for rank, data_s in enumerate(pictures) if rank != slowest]
    later = pictures[slowest] - sum(others) / len(others)
    return replace(
        split,
        slowest=slowest,
        slowest_s=owed[slowest] / (count - 1),
        slowest_data_s=max(later, 0.0),
    )


def _host(rank: int, world: World) -> str:
    """`` on n3`` where there are several machines."""
    if len(world.hosts) < 2:
        return ""
    named: Mapping[int, str] = {
        one: name
        for name, ranks in zip(machine_names(world.hosts), world.machines, strict=True)
        for one in ranks
    }
    return f" on {named[rank]}" if rank in named else ""
