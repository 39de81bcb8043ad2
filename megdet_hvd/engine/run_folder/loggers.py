"""Loggers of the user's own: they get every line of a run's metrics. Rank 0 only."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from megdet_hvd.config.schema import Config
from megdet_hvd.engine.run_folder.best_effort import BestEffort
from megdet_hvd.errors import UserError


@runtime_checkable
class MetricsLogger(Protocol):
    """Takes the lines of a run's metrics somewhere else. It may have ``close()`` too."""

    def write(self, line: Mapping[str, Any]) -> None:
        """A line of ``metrics.jsonl``, as it stands there; the logger's own copy.

        ``kind`` is ``train`` or ``eval``, ``iteration`` counts from 1 (0: the untrained model).
        Whatever it raises is told once, as a warning, and training goes on without this logger.
        Rank 0 waits for it, and all others for rank 0: what may hang belongs into a thread.
        """
        ...


class LoggerFactory(Protocol):
    """Makes a logger."""

    def __call__(self, run_folder: Path, config: Config, iteration: int, /) -> MetricsLogger:
        """Called on rank 0 once the run folder is there, before the first step.

        Args:
            run_folder: the run's; files may be put beside ours.
            config: of the run, resolved.
            iteration: of the checkpoint that is carried on; lines after it come again. 0: a new
                run.

        What it raises costs a warning, and the run goes on without this logger.
        """
        ...


class MetricsLoggers:
    """All loggers of a run. What goes wrong in one costs a warning, and never the run."""

    def __init__(self, loggers: Sequence[tuple[MetricsLogger, BestEffort]] = ()) -> None:
        self._loggers = list(loggers)

    @classmethod
    def opened(
        cls,
        factories: Sequence[tuple[str, LoggerFactory]],
        run_folder: Path,
        config: Config,
        iteration: int,
    ) -> "MetricsLoggers":
        """Make the loggers, each by its name and its factory.

        Raises:
            UserError: one makes something else than a logger.
        """
        loggers = []
        for name, factory in factories:
            effort = BestEffort(f"the logger {name}", "used")
            made: MetricsLogger | None = None
            with effort.writing():
                made = factory(run_folder, config, iteration)
            if effort.failed:
                continue
            if not callable(getattr(made, "write", None)):
                raise UserError(
                    f"log.loggers: {name} gives a {type(made).__name__}, which has no method "
                    "write(line); return an object that has one"
                )
            assert made is not None, "it can write"
            loggers.append((made, effort))
        return cls(loggers)

    def write(self, line: Mapping[str, Any]) -> None:
        """Hand a line to those that have not failed so far."""
        for logger, effort in self._loggers:
            if not effort.failed:
                with effort.writing():
                    logger.write(dict(line))

    def close(self) -> None:
        """The run ends, however it does: close all that can be closed, once."""
        loggers, self._loggers = self._loggers, []
        for logger, effort in loggers:
            with effort.writing():
                close = getattr(logger, "close", None)
                if close is not None:
                    close()
