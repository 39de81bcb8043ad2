"""The preflight at the start of a run, and its lines in the log."""

from collections.abc import Sequence

from megdet_hvd.config.schema import Config
from megdet_hvd.job.log import LOGGER
from megdet_hvd.job.world import World
from megdet_hvd.preflight.run import run_preflight, wanted


def before_training(config: Config, world: World) -> None:
    """Run it where the setting ``preflight`` wants one. Every process calls it together.

    Raises:
        UserError: on all ranks alike.
    """
    if wanted(config, world):
        report = run_preflight(config, world)
        if world.is_main:
            log_report(report.lines, report.warnings)


def log_report(lines: Sequence[str], warnings: Sequence[str]) -> None:
    """What was found, in the log; ranks other than 0 would repeat the warnings."""
    for line in lines:
        LOGGER.info(f"preflight: {line}")
    for warning in warnings:
        LOGGER.warning(f"warning: preflight: {warning}")
