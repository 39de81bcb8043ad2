"""What a run wrote into its ``metrics.jsonl``, read back."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MetricsRecord = dict[str, Any]


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
    by_kind: dict[str, dict[int, MetricsRecord]] = {"train": {}, "eval": {}}
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
            continue
        iteration = record.get("iteration")
        if record["kind"] in by_kind and isinstance(iteration, int) and iteration >= 0:
            by_kind[record["kind"]][iteration] = record
    return MetricsFile(
        *([lines[i] for i in sorted(lines)] for lines in (by_kind["train"], by_kind["eval"]))
    )


def series(records: list[MetricsRecord], x: str, y: str) -> tuple[list[float], list[float]]:
    """Two columns of the records that have both; null is left out."""
    pairs = [
        (float(record[x]), float(record[y]))
        for record in records
        if isinstance(record.get(x), int | float) and isinstance(record.get(y), int | float)
    ]
    return [a for a, _ in pairs], [b for _, b in pairs]
