"""``jobs.jsonl`` of a run folder: a line when an attempt starts, launches its ranks, and ends."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megdet_hvd.storage import retried

FILE = "jobs.jsonl"


def append(folder: Path, event: str, **values: Any) -> None:
    """Add a line. Raises OSError."""
    line = json.dumps({"event": event, "time": round(time.time(), 3), **values})
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """All whole lines, oldest first."""
    try:
        text = retried(lambda: (folder / FILE).read_text(encoding="utf-8", errors="replace"))
        lines = text.splitlines()
    except OSError:  # not there yet, or a file system that fails for more than a moment
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


def slurm_id(one: Mapping[str, Any]) -> str:
    """How Slurm's commands mean the job of a record: a member of an array is ``ARRAY_MEMBER``."""
    return str(one.get("slurm_id", one.get("job", "?")))


def jobs_before(records: list[dict[str, Any]], job: int) -> set[int]:
    """The job itself, and those that it follows where Slurm requeues none."""
    found = {job}
    for record in reversed(records):
        if record.get("event") == "successor" and record.get("successor") in found:
            found.add(record["job"])
    return found


def idle_starts_of(records: list[dict[str, Any]], job: int) -> int:
    """How often in a row, up to now, this job was requeued without a new checkpoint."""
    count, jobs = 0, jobs_before(records, job)
    for record in reversed(records):
        if record.get("event") == "end" and record.get("job") in jobs:
            if not record.get("requeued") or record.get("failure") or record.get("progressed"):
                return count
            count += 1
    return count


def failures_of(records: list[dict[str, Any]], job: int) -> int:
    """How often this job was requeued after a failure."""
    jobs = jobs_before(records, job)
    return sum(
        1
        for record in records
        if record.get("event") == "end"
        and record.get("job") in jobs
        and record.get("requeued")
        and record.get("failure")
    )
