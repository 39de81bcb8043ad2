"""What training and evaluation ask of the session that they run in."""

from dataclasses import replace

from megdet_hvd.config.schema import Config
from megdet_hvd.engine.resumption import Resumption
from megdet_hvd.job.horovod_settings import settings_for
from megdet_hvd.job.needs import SessionNeeds


def training_needs(config: Config, resumption: Resumption | None = None) -> SessionNeeds:
    """What is asked of the session by a training run, or of one that is carried on."""
    from megdet_hvd.engine.norms import sharing_of
    from megdet_hvd.preflight.compare import check_facts
    from megdet_hvd.preflight.facts import gather_facts

    needs = SessionNeeds(
        settings_for(config),
        sharing_of(config),
        watchdog_s=config.watchdog.seconds,
        environment=environment_for(config),
    )
    if resumption is not None:
        needs = replace(needs, bn_groups=resumption.sharing)
    if config.preflight == "never":
        return needs
    return replace(needs, facts=lambda: gather_facts(config), check=check_facts)


def environment_for(config: Config) -> dict[str, str]:
    """Variables that must be there before CUDA starts, for a run with this configuration."""
    from megdet_hvd.job.peer import EAGER, MODULE_LOADING

    return {MODULE_LOADING: EAGER} if config.bn.carrier == "peer" else {}


def evaluation_needs(config: Config) -> SessionNeeds:
    """What is asked of the session by an evaluation: nobody shares BN statistics."""
    return SessionNeeds(
        bn_groups=lambda machines: tuple((r,) for ranks in machines for r in ranks),
        watchdog_s=config.watchdog.seconds,
    )
