"""What a program asks of the session that it runs in."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from megdet_hvd.config.schema import Config, WatchdogConfig
from megdet_hvd.engine.resumption import Resumption
from megdet_hvd.job.horovod_settings import HorovodSettings, settings_for
from megdet_hvd.job.world import Machines


@dataclass(frozen=True)
class SessionNeeds:
    """Wishes that must be known before Horovod starts."""

    horovod: HorovodSettings | None = None
    """How Horovod's thread is set up; None: as Horovod does."""
    bn_groups: Callable[[Machines], Machines] | None = None
    """Who shares BN statistics, given the ranks of each machine; None: each machine."""
    watchdog_s: float = WatchdogConfig().seconds
    """When a hang ends the job; 0: never."""
    facts: Callable[[], Any] | None = None
    """What each rank tells the others of itself."""
    check: Callable[[list[Any], Machines], str | None] | None = None
    """What is wrong with the facts of all ranks."""


def training_job(config: Config, resumption: Resumption | None = None) -> SessionNeeds:
    """The wishes of a training run, or of one that is carried on."""
    from megdet_hvd.engine.norms import sharing_of
    from megdet_hvd.preflight.compare import check_facts
    from megdet_hvd.preflight.facts import gather_facts

    job = SessionNeeds(settings_for(config), sharing_of(config), watchdog_s=config.watchdog.seconds)
    if resumption is not None:
        job = replace(job, bn_groups=resumption.sharing)
    if config.preflight == "never":
        return job
    return replace(job, facts=lambda: gather_facts(config), check=check_facts)


def evaluation_job(config: Config) -> SessionNeeds:
    """The wishes of an evaluation: nobody shares BN statistics."""
    return SessionNeeds(
        bn_groups=lambda machines: tuple((r,) for ranks in machines for r in ranks),
        watchdog_s=config.watchdog.seconds,
    )
