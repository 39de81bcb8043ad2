"""``jobs.jsonl`` of a run folder: a line when an attempt starts, launches its ranks, and ends."""

import json
import time
from pathlib import Path
from typing import Any

FILE = "jobs.jsonl"


def append(folder: Path, event: str, **values: Any) -> None:
    """Add a line. Raises OSError."""
    line = json.dumps({"event": event, "time": round(time.time(), 3), **values})
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """All whole lines, oldest first."""
    try:
        lines = (folder / FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not there yet, or a file system that fails for the moment
        return []
    found = []
    for line in lines:
        try:
            one = json.loads(line)
        except ValueError:
            continue  # half a line, written when the power went
        if isinstance(one, dict):
            found.append(one)
    return found


def last_job(records: list[dict[str, Any]]) -> int | None:
    """The job that worked in the run last; None: none has."""
    jobs = [one["job"] for one in records if isinstance(one.get("job"), int)]
    return jobs[-1] if jobs else None


def idle_starts_of(records: list[dict[str, Any]], job: int) -> int:
    """How often in a row, up to now, this job was requeued without a new checkpoint."""
    count = 0
    for record in reversed(records):
        if record.get("event") == "end" and record.get("job") == job:
            if not record.get("requeued") or record.get("failure") or record.get("progressed"):
                return count
            count += 1
    return count


def failures_of(records: list[dict[str, Any]], job: int) -> int:
    """How often this job was requeued after a failure."""
    return sum(
        1
        for record in records
        if record.get("event") == "end"
        and record.get("job") == job
        and record.get("requeued")
        and record.get("failure")
    )
