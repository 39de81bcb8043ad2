"""``submit --status``: where a run stands, from its folder, and from Slurm where there is one."""

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megdet_hvd.checkpoint.naming import BEST, list_checkpoints
from megdet_hvd.errors import UserError
from megdet_hvd.report.metrics_file import read_metrics
from megdet_hvd.slurm_job import record
from megdet_hvd.submit.queue import ask_ended, ask_log, ask_queue, queue_words
from megdet_hvd.submit.standing import attempts, clock, progress

_HEAD = 50_000
_RUN_FOLDER = "job: run folder: "


def status(run: str, root: Path) -> list[str]:
    """One screen on a run.

    Args:
        run: its folder, or the number of its job.
        root: the project's folder.

    Raises:
        UserError: there is no such folder, and Slurm knows no such job.
    """
    folder = Path(run)
    if not folder.is_dir() and (root / run).is_dir():
        folder = root / run
    if folder.is_dir():
        records = record.read(folder)
        jobs = [str(one["job"]) for one in records if "job" in one]
        return [*_of_folder(folder, records), *(_of_job(jobs[-1]) if jobs else [])]
    if not run.isdecimal():
        raise UserError(f"{run}: no such folder, and no job's number; runs lie in {root}/runs")
    log = ask_log(run)
    found = folder_of(run, root) or (folder_in_log(Path(log)) if log else None)
    if found is not None:
        return [*_of_folder(found, record.read(found)), *_of_job(run)]
    lines = _of_job(run)
    if log is None and "knows nothing" in lines[-1]:
        raise UserError(f"job {run}: no run of it below {root}/runs, and {lines[-1]}")
    where = f"log: {log}" if log else "it has no run folder yet"
    return [*lines, where]


def folder_of(job: str, root: Path) -> Path | None:
    """The run folder that a job worked in, below ``runs``; None: none did."""
    for file in sorted(root.glob(f"runs/*/{record.FILE}")):
        if any(str(one.get("job")) == job for one in record.read(file.parent)):
            return file.parent
    return None


def folder_in_log(log: Path) -> Path | None:
    """The run folder that the first lines of a job's log name; None: they don't."""
    try:
        with log.open(encoding="utf-8", errors="replace") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    named = re.findall(rf"{_RUN_FOLDER}(.+)", head)
    return Path(named[-1]) if named and Path(named[-1]).is_dir() else None


def _of_folder(folder: Path, records: Sequence[Mapping[str, Any]]) -> list[str]:
    metrics = read_metrics(folder / "metrics.jsonl")
    lines = [f"run {folder.absolute()}"]
    end = _end_iteration(folder, metrics.train)
    lines += progress(metrics.train, metrics.eval, end)
    checkpoints = list_checkpoints(folder / "checkpoints")
    if checkpoints:
        newest = checkpoints[-1]
        age = clock(max(0.0, time.time() - newest.stat().st_mtime))
        best = ", and best.pt" if (newest.parent / BEST).exists() else ""
        lines.append(f"newest checkpoint: {newest.name}, {age} old{best}")
    else:
        lines.append("no checkpoint yet")
    return [*lines, *attempts(records)]


def _of_job(job: str) -> list[str]:
    queued, why_not = ask_queue(job)
    if why_not is not None:
        return [f"Slurm was not asked: {why_not}"]
    if queued is not None:
        return queue_words(job, queued)
    ended = ask_ended(job)
    told = f"ended: {ended}" if ended else "Slurm knows nothing of it any more"
    return [f"job {job} is not in the queue; {told}"]


def _end_iteration(folder: Path, train: Sequence[Mapping[str, Any]]) -> int | None:
    """Iterations of the whole run; None: not known without yaml, or before the first metrics."""
    if not train or not train[-1].get("epoch"):
        return None
    try:
        from megdet_hvd.config.derive import policy_of
        from megdet_hvd.config.load import load_config
        from megdet_hvd.schedule.policy import milestone_iteration

        config = load_config(folder / "config.yaml")
    except (ModuleNotFoundError, UserError):
        return None
    pictures = round(train[-1]["images_seen"] / train[-1]["epoch"])
    end = milestone_iteration(policy_of(config.learning).end_epoch, pictures, config.global_batch)
    return min(end, config.learning.max_iterations or end)
