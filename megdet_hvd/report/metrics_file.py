"""What a run wrote into its ``metrics.jsonl``, read back."""

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MetricsRecord = dict[str, Any]

_TORN = 2
"""Lines at the end of which one may be cut off in mid-write."""


@dataclass(frozen=True)
class MetricsFile:
    """The lines of a run, each kind by iteration."""

    train: list[MetricsRecord]
    """Losses, rate and speed every few iterations."""
    eval: list[MetricsRecord]
    """One for each evaluation."""


def read_metrics(path: Path) -> MetricsFile:
    """Read a file that may still be written to, and may hold iterations twice after a resume.

    Of two lines for one iteration the later counts; a line cut off in mid-write, or that is no
    line of a run's, is left out. No file: no lines.

    Raises:
        OSError: the file can't be read.
    """
    return by_iteration(record for line in _lines(path) if (record := parse_line(line)) is not None)


def read_standing(path: Path) -> MetricsFile:
    """All evaluations, and of the training lines the last one alone: where a run stands.

    Reads as :func:`read_metrics` does, one line at a time, and parses no more than these: of a
    long run nearly all lines are training's.

    Raises:
        OSError: the file can't be read.
    """
    found: list[MetricsRecord] = []
    last: deque[str] = deque(maxlen=_TORN)
    for line in _lines(path):
        if '"eval"' in line:
            if (record := parse_line(line)) is not None:
                found.append(record)
        else:
            last.append(line)
    newest = [record for line in last if (record := parse_line(line)) is not None]
    if last and not newest:  # a full disk cuts off one line after another
        return MetricsFile(read_metrics(path).train[-1:], by_iteration(found).eval)
    lines = by_iteration([*found, *newest])
    return MetricsFile(lines.train[-1:], lines.eval)


def by_iteration(records: Iterator[MetricsRecord] | list[MetricsRecord]) -> MetricsFile:
    """Lines as they were written, by kind and iteration; of two for one iteration the later."""
    by_kind: dict[str, dict[int, MetricsRecord]] = {"train": {}, "eval": {}}
    for record in records:
        by_kind[record["kind"]][record["iteration"]] = record
    return MetricsFile(
        *([lines[i] for i in sorted(lines)] for lines in (by_kind["train"], by_kind["eval"]))
    )


def parse_line(line: str) -> MetricsRecord | None:
    """A line of a run; None: it is none, or is cut off. NaN and infinities count as null."""
    try:
        record = json.loads(line, parse_constant=_null)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("kind") not in ("train", "eval"):
        return None
    iteration = record.get("iteration")
    return record if isinstance(iteration, int) and iteration >= 0 else None


def _null(word: str) -> None:
    """NaN, Infinity or -Infinity, which are no JSON, but what other programs write."""
    del word


def _lines(path: Path) -> Iterator[str]:
    """One at a time: a file of a million iterations is never in memory as a whole."""
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from file


def series(records: list[MetricsRecord], x: str, y: str) -> tuple[list[float], list[float]]:
    """Two columns of the records that have both; null is left out."""
    pairs = [
        (float(record[x]), float(record[y]))
        for record in records
        if isinstance(record.get(x), int | float) and isinstance(record.get(y), int | float)
    ]
    return [a for a, _ in pairs], [b for _, b in pairs]
