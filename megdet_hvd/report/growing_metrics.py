"""The metrics of a run that goes on, read again and again: each line once, and thinned for curves.

A run draws its curves after every epoch. Reading all lines each time would cost the square of the
run's length, and drawing them all more than the picture can show.
"""

import os
from pathlib import Path

from megdet_hvd.report.metrics_file import MetricsFile, MetricsRecord, by_iteration, parse_line

MOST_LINES = 2000
"""Training lines that are kept at most: six for each pixel of a curve's panel."""


class GrowingMetrics:
    """A ``metrics.jsonl`` that is still written to."""

    def __init__(self, path: Path, most: int = MOST_LINES) -> None:
        """``most``: training lines to keep, evenly spread and the newest; evaluations all stay."""
        self._path, self._most = path, most
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._file: tuple[int, int] | None = None
        """Device and number of the file that was read so far."""
        self._offset = 0
        """Bytes of it that were read, up to the end of a line."""
        self._train: list[MetricsRecord] = []
        self._newest: MetricsRecord | None = None
        self._every = 1
        """Of so many training lines one is kept."""
        self._seen = 0
        self._eval: list[MetricsRecord] = []

    def read(self) -> MetricsFile:
        """The lines so far; what was read before is not read again. No file: no lines.

        A file that was replaced, as on a resume, or that has become shorter, is read from its
        beginning.

        Raises:
            OSError: the file can't be read.
        """
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if (status.st_dev, status.st_ino) != self._file or status.st_size < self._offset:
                    self._begin_anew()
                    self._file = status.st_dev, status.st_ino
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # still being written
                    self._offset += len(line)
                    self._take(parse_line(line.decode("utf-8", "replace")))
        except FileNotFoundError:
            self._begin_anew()
        newest = [] if self._newest is None else [self._newest]
        return by_iteration([*self._train, *newest, *self._eval])

    def _take(self, record: MetricsRecord | None) -> None:
        if record is None:
            return
        if record["kind"] == "eval":
            self._eval.append(record)
            return
        if self._newest is not None and record["iteration"] <= self._newest["iteration"]:
            # A run was resumed that could not cut this file: its former lines count no more, and
            # thinning would leave out those that take the place of others.
            self._train = [one for one in self._train if one["iteration"] < record["iteration"]]
        self._newest = record
        if self._seen % self._every == 0:
            self._train.append(record)
        self._seen += 1
        if len(self._train) > self._most:
            self._train = self._train[::2]
            self._every *= 2
