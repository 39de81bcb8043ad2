"""What a program asks of the session that it runs in."""

from collections.abc import Callable
from dataclasses import dataclass

from megdet_hvd.comm.settings import HorovodSettings, settings_for
from megdet_hvd.comm.world import Machines
from megdet_hvd.config.schema import Config, WatchdogConfig


@dataclass(frozen=True)
class Job:
    """Wishes that must be known before Horovod starts."""

    horovod: HorovodSettings | None = None
    """How Horovod's thread is set up; None: as Horovod does."""
    bn_groups: Callable[[Machines], Machines] | None = None
    """Who shares BN statistics, given the ranks of each machine; None: each machine."""
    watchdog_s: float = WatchdogConfig().seconds
    """When a hang ends the job; 0: never."""


def training_job(config: Config) -> Job:
    """The wishes of a training run."""
    from megdet_hvd.engine.norms import sharing_of

    return Job(settings_for(config), sharing_of(config), config.watchdog.seconds)


def evaluation_job(config: Config) -> Job:
    """The wishes of an evaluation: nobody shares BN statistics."""
    return Job(
        bn_groups=lambda machines: tuple((r,) for ranks in machines for r in ranks),
        watchdog_s=config.watchdog.seconds,
    )
