"""The log of a run: rank 0 to standard output and to a file; other ranks only their warnings."""

import logging
import sys
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from megdet_hvd.comm.world import World
from megdet_hvd.config.refit import Refit

LOGGER = logging.getLogger("megdet_hvd")


def _write_line(text: str, stream: TextIO) -> None:
    """One write for the whole line: launchers tag, and interleave, what comes in pieces."""
    with tqdm.external_write_mode(file=stream):
        stream.write(f"{text}\n")
        stream.flush()


class _BesideBar(logging.Handler):
    """Writes whole lines, above the progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        _write_line(self.format(record), sys.stdout)


def start_log(world: World) -> None:
    """Set up the package's logger. Entry points call it, nobody else."""
    for handler in list(LOGGER.handlers):
        LOGGER.removeHandler(handler)
    handler = _BesideBar()
    prefix = "" if world.is_main else f"[rank {world.rank}] "
    handler.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO if world.is_main else logging.WARNING)
    LOGGER.propagate = False


def log_to_file(path: Path) -> None:
    """Copy rank 0's log, with the time, to the run folder."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    LOGGER.addHandler(handler)


def log_refit(refit: Refit, world: World) -> None:
    """What changes because a run is carried on with other processes."""
    for line in refit.lines:
        LOGGER.info(line)
    if refit.warning is not None and world.is_main:
        LOGGER.warning(f"warning: {refit.warning}")


def log_error(text: str) -> None:
    """The message that ends the run: to standard error, and to the run's log file."""
    log_urgent(f"error: {text}")


def log_urgent(text: str) -> None:
    """To standard error, and to the run's log file."""
    _write_line(text, sys.stderr)
    record = LOGGER.makeRecord(LOGGER.name, logging.ERROR, "", 0, text, (), None)
    for handler in LOGGER.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
