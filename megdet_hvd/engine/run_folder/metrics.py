"""Numbers of a run: JSON lines, and TensorBoard beside them. Rank 0 only."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from megdet_hvd.engine.run_folder.best_effort import BestEffort
from megdet_hvd.engine.run_folder.loggers import MetricsLoggers
from megdet_hvd.report.metrics_file import MetricsFile, read_metrics


def _plain(value: Any) -> Any:
    """NaN and infinities as null: JSON has no other word for them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def lines_so_far(file: Path) -> MetricsFile:
    """What a run has written; nothing, with a warning, where it can't be read. Rank 0 only."""
    found = MetricsFile([], [])
    with BestEffort(str(file), "read").writing():
        found = read_metrics(file)
    return found


class Metrics:
    """Appends to ``metrics.jsonl`` and, where wanted, to TensorBoard event files and loggers.

    Whatever goes wrong costs lines, with one warning, and never the run.
    """

    def __init__(
        self,
        file: Path,
        tensorboard: Path | None,
        from_iteration: int,
        before: Callable[[], None] = lambda: None,
        loggers: MetricsLoggers | None = None,
    ) -> None:
        """``before`` is called before each line; what it raises passes, and nothing is written."""
        self._before = before
        self._loggers = MetricsLoggers() if loggers is None else loggers
        self._file = file
        self._best_effort = BestEffort(str(file))
        self._torn = False
        """The last line may have been cut off."""
        self._writer: Any = None
        if tensorboard is not None:
            self._best_effort_events = BestEffort(str(tensorboard))
            with self._best_effort_events.writing():
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(tensorboard), purge_step=from_iteration + 1)

    def write(self, kind: str, iteration: int, /, **values: Any) -> None:
        """One line, complete before it is visible to a reader of whole lines."""
        self._before()
        record: dict[str, Any] = {"kind": kind, "iteration": iteration, **values}
        with self._best_effort.writing():
            record = _plain(record)
            line = json.dumps(record) + "\n"
            before, self._torn = "\n" if self._torn else "", True
            with self._file.open("a", encoding="utf-8") as file:
                file.write(before + line)
            self._torn = False
        self._loggers.write(record)
        if self._writer is None:
            return
        writer, self._writer = self._writer, None  # after an error its thread has ended
        with self._best_effort_events.writing():
            for name, value in values.items():
                if isinstance(value, (int, float)) and math.isfinite(value):
                    writer.add_scalar(f"{kind}/{name}", value, iteration)
            writer.flush()
            self._writer = writer

    def close(self) -> None:
        """Close the event files, and the loggers."""
        self._loggers.close()
        if self._writer is not None:
            with self._best_effort_events.writing():
                self._writer.close()
