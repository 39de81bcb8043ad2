"""The log of a run: rank 0 to standard output and to a file; other ranks only their warnings."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from megdet_hvd.config.elastic_resume import ElasticResume
from megdet_hvd.job.world import World

LOGGER = logging.getLogger("megdet_hvd")


def _write_line(text: str, stream: TextIO) -> None:
    """One write for the whole line: launchers tag, and interleave, what comes in pieces."""
    with tqdm.external_write_mode(file=stream):
        stream.write(f"{text}\n")
        stream.flush()


class _BesideBar(logging.Handler):
    """Writes whole lines, above the progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):  # a full disk or a closed stream takes the line, not the run
            _write_line(self.format(record), sys.stdout)


class _RunLog(logging.FileHandler):
    """Once its file can't be written it says so, and is silent from then on."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, Exception) and not self.failed:
            self.failed = True
            _log_lost(self.baseFilename, error)


def _log_lost(file: str | Path, error: Exception) -> None:
    reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    LOGGER.warning(
        f"warning: {file} can't be written ({reason}), and the log goes on "
        "without; this is said once"
    )


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


class _ToCaller(logging.Handler):
    """Hands records to the loggers of the program that we are a part of, as they want them."""

    def __init__(self, level: int) -> None:
        super().__init__(level)

    def emit(self, record: logging.LogRecord) -> None:
        if LOGGER.parent is not None:
            LOGGER.parent.handle(record)


@contextmanager
def borrowed_log(rank: int) -> Iterator[None]:
    """Inside, rank 0's run folder gets its log; afterwards the package's logger is as it was.

    For a training inside somebody's program: what is shown is for that program's logging to say.
    """
    handlers, level, propagate = list(LOGGER.handlers), LOGGER.level, LOGGER.propagate
    if propagate:
        LOGGER.addHandler(_ToCaller(LOGGER.getEffectiveLevel()))
    LOGGER.propagate = False
    LOGGER.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    try:
        yield
    finally:
        for handler in [own for own in LOGGER.handlers if own not in handlers]:
            LOGGER.removeHandler(handler)
            handler.close()
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate


def log_to_file(path: Path) -> None:
    """Copy rank 0's log, with the time, to the run folder."""
    try:
        handler = _RunLog(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        _log_lost(path, error)
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    LOGGER.addHandler(handler)


def log_elastic_resume(resumed: ElasticResume, world: World) -> None:
    """What changes because a run is carried on with other processes."""
    for line in resumed.lines:
        LOGGER.info(line)
    if resumed.warning is not None and world.is_main:
        LOGGER.warning(f"warning: {resumed.warning}")


def log_error(text: str) -> None:
    """The message that ends the run: to standard error, and to the run's log file."""
    log_urgent(f"error: {text}")


def log_urgent(text: str) -> None:
    """To standard error, and to the run's log file."""
    with suppress(Exception):
        _write_line(text, sys.stderr)
    record = LOGGER.makeRecord(LOGGER.name, logging.ERROR, "", 0, text, (), None)
    for handler in LOGGER.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
