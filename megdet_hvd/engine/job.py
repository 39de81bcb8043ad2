"""What a program asks of the session that it runs in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from megdet_hvd.comm.settings import HorovodSettings, settings_for
from megdet_hvd.comm.world import Machines
from megdet_hvd.config.schema import Config, WatchdogConfig
from megdet_hvd.engine.resumption import Resumption


@dataclass(frozen=True)
class Job:
    """Wishes that must be known before Horovod starts."""

    horovod: HorovodSettings | None = None
    """How Horovod's thread is set up; None: as Horovod does."""
    bn_groups: Callable[[Machines], Machines] | None = None
    """Who shares BN statistics, given the ranks of each machine; None: each machine."""
    view: Any = None
    """What rank 0 sees and all go by; see :func:`megdet_hvd.comm.session.start`."""
    hear: Callable[[Any], None] | None = None
    """Called with it."""
    watchdog_s: float = WatchdogConfig().seconds
    """When a hang ends the job; 0: never."""


def training_job(config: Config, resumption: Resumption | None = None) -> Job:
    """The wishes of a training run, or of one that is carried on."""
    from megdet_hvd.engine.norms import sharing_of

    if resumption is None:
        return Job(settings_for(config), sharing_of(config), watchdog_s=config.watchdog.seconds)
    return Job(
        settings_for(config),
        resumption.sharing,
        view=resumption.before,
        hear=resumption.hear,
        watchdog_s=config.watchdog.seconds,
    )


def evaluation_job(config: Config) -> Job:
    """The wishes of an evaluation: nobody shares BN statistics."""
    return Job(
        bn_groups=lambda machines: tuple((r,) for ranks in machines for r in ranks),
        watchdog_s=config.watchdog.seconds,
    )
