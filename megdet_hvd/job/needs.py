"""What a program asks of the session that it runs in."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from megdet_hvd.job.horovod_settings import HorovodSettings
from megdet_hvd.job.world import Machines, World

DEFAULT_WATCHDOG_S = 60.0


@dataclass(frozen=True)
class SessionNeeds:
    """What must be known before Horovod starts."""

    horovod: HorovodSettings | None = None
    """How Horovod's thread is set up; None: as Horovod does."""
    bn_groups: Callable[[Machines], Machines] | None = None
    """Who shares BN statistics, given the ranks of each machine; None: each machine."""
    watchdog_s: float = DEFAULT_WATCHDOG_S
    """When a hang ends the job; 0: never."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that libraries read when they start; those that the user set stand."""
    facts: Callable[[], Any] | None = None
    """What each rank tells the others of itself."""
    check: Callable[[list[Any], Machines], str | None] | None = None
    """What is wrong with the facts of all ranks."""
    dispensable: Callable[[World], Collection[int]] = lambda world: ()
    """The ranks without which the others go on; may raise UserError, on all ranks alike."""
