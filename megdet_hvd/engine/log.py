"""The log of a run: rank 0 to standard output and to a file; other ranks only their warnings."""

import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from megdet_hvd.comm.world import World

LOGGER = logging.getLogger("megdet_hvd")


def _write_line(text: str, stream: TextIO) -> None:
    """One write for the whole line: launchers tag, and interleave, what comes in pieces."""
    with tqdm.external_write_mode(file=stream):
        stream.write(f"{text}\n")
        stream.flush()


class _BesideBar(logging.Handler):
    """Writes whole lines, above the progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # a full disk takes the line, not the run
            _write_line(self.format(record), sys.stdout)


class _RunLog(logging.FileHandler):
    """Once its file can't be written it says so, and is silent from then on."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.failed:
            self.failed = True
            _log_lost(self.baseFilename, error)


def _log_lost(file: str | Path, error: OSError) -> None:
    LOGGER.warning(
        f"warning: {file} can't be written ({error.strerror or error}), and the log goes on "
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


def log_to_file(path: Path) -> None:
    """Copy rank 0's log, with the time, to the run folder."""
    try:
        handler = _RunLog(path)
    except OSError as error:
        _log_lost(path, error)
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    LOGGER.addHandler(handler)


def log_error(text: str) -> None:
    """The message that ends the run: to standard error, and to the run's log file."""
    log_urgent(f"error: {text}")


def log_urgent(text: str) -> None:
    """To standard error, and to the run's log file."""
    with suppress(OSError):
        _write_line(text, sys.stderr)
    record = LOGGER.makeRecord(LOGGER.name, logging.ERROR, "", 0, text, (), None)
    for handler in LOGGER.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
