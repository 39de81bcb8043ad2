"""``submit --status``: where a run stands, from its folder, and from Slurm where there is one."""

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megdet_hvd.checkpoint.naming import BEST, list_checkpoints
from megdet_hvd.errors import UserError
from megdet_hvd.report.metrics_file import read_standing
from megdet_hvd.slurm_job import record
from megdet_hvd.submit.queue import (
    ask_array,
    ask_ended,
    ask_log,
    ask_logs,
    ask_queue,
    queue_words,
)
from megdet_hvd.submit.standing import attempts, progress
from megdet_hvd.wording import duration

_HEAD = 50_000
_RUN_FOLDER = "job: run folder: "
_UNKNOWN = "Slurm knows nothing of it any more"
_NOT_ASKED = "Slurm was not asked"


def status(run: str, root: Path) -> list[str]:
    """One screen on a run.

    Args:
        run: its folder, or the number of its job, of an array, or of a member (``4711_2``).
        root: the project's folder.

    Raises:
        UserError: there is no such folder, and Slurm knows no such job, or can't be asked.
    """
    folder = Path(run)
    if not folder.is_dir() and (root / run).is_dir():
        folder = root / run
    if folder.is_dir():
        records = record.read(folder)
        jobs = [record.slurm_id(one) for one in records if "job" in one]
        return [*_of_folder(folder, records), *(_of_job(jobs[-1]) if jobs else [])]
    if not re.fullmatch(r"\d+(_\d+)?", run, re.ASCII):
        raise UserError(f"{run}: no such folder, and no job's number; runs lie in {root}/runs")
    if run.isdecimal() and (members := _members(run, root)):
        return _of_array(run, members)
    log = ask_log(run)
    found = folder_of(run, root) or (folder_in_log(Path(log)) if log else None)
    if found is not None:
        return [*_of_folder(found, record.read(found)), *_of_job(run)]
    lines = _of_job(run)
    if log is None and any(words in lines[-1] for words in (_UNKNOWN, _NOT_ASKED)):
        raise UserError(f"job {run}: no run of it below {root}/runs, and {lines[-1]}")
    where = f"log: {log}" if log else "it has no run folder yet"
    return [*lines, where]


def folder_of(job: str, root: Path) -> Path | None:
    """The run folder that a job worked in, below ``runs``; None: none did."""
    for file in sorted(root.glob(f"runs/*/{record.FILE}")):
        if any(record.slurm_id(one) == job for one in record.read(file.parent)):
            return file.parent
    return None


def _members(array: str, root: Path) -> dict[int, Path | None]:
    """The members of an array, and their run folders; empty: it is none."""
    found: dict[int, Path | None] = dict.fromkeys(ask_array(array))
    for folder in root.glob(f"runs/*-{array}_*"):
        if match := re.search(rf"-{array}_(\d+)$", folder.name, re.ASCII):
            found[int(match[1])] = folder
    for number, log in ask_logs(array).items():
        if found.get(number) is None:
            found[number] = folder_in_log(Path(log))
    return found


def _of_array(array: str, members: Mapping[int, Path | None]) -> list[str]:
    """A line for each: what it differs in, how it stands, how far it is."""
    queued = ask_array(array)
    records = {n: [] if folder is None else record.read(folder) for n, folder in members.items()}
    words = {n: _words(one) for n, one in records.items()}
    known = [set(one) for one in words.values() if one]
    common = set.intersection(*known) if len(known) > 1 else set()
    lines = [f"array {array}: {len(members)} members"]
    for number, folder in sorted(members.items()):
        own = " ".join(word for word in words[number] if word not in common)
        state = queued.get(number)
        if state is None:
            state = f"ended: {ask_ended(f'{array}_{number}') or 'Slurm no longer knows how'}"
        far = "no run folder yet"
        if folder is not None:
            metrics = read_standing(folder / "metrics.jsonl")
            end = _end_iteration(folder, metrics.train)
            far = "; ".join([*progress(metrics.train, metrics.eval, end), str(folder)])
        lines.append(f"{array}_{number}{f' ({own})' if own else ''}: {state}; {far}")
    return lines


def _words(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings of a run's last start."""
    starts = [one for one in records if one.get("event") == "start"]
    found = starts[-1].get("words") if starts else None
    return [str(word) for word in found] if isinstance(found, list) else []


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
    metrics = read_standing(folder / "metrics.jsonl")
    lines = [f"run {folder.absolute()}"]
    end = _end_iteration(folder, metrics.train)
    lines += progress(metrics.train, metrics.eval, end)
    checkpoints = list_checkpoints(folder / "checkpoints")
    if checkpoints:
        newest = checkpoints[-1]
        age = duration(max(0.0, time.time() - newest.stat().st_mtime))
        best = ", and best.pt" if (newest.parent / BEST).exists() else ""
        lines.append(f"newest checkpoint: {newest.name}, {age} old{best}")
    else:
        lines.append("no checkpoint yet")
    return [*lines, *attempts(records)]


def _of_job(job: str) -> list[str]:
    queued, why_not = ask_queue(job)
    if why_not is not None:
        return [f"{_NOT_ASKED}: {why_not}"]
    if queued is not None:
        return queue_words(job, queued)
    ended = ask_ended(job)
    told = f"ended: {ended}" if ended else _UNKNOWN
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
