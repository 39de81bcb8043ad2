"""A run's numbers and its attempts in words. Pure."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from megdet_hvd.wording import counted, duration

_SHOWN = 5


def progress(
    train: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]], end: int | None
) -> list[str]:
    """Iteration, loss, speed and time left, and the evaluations' mmAP.

    Args:
        train: lines of metrics, oldest first.
        evaluations: likewise.
        end: iterations of the whole run; None: not known.
    """
    if not train:
        return ["no metrics yet: not started, or still before its first lines"]
    last = train[-1]
    iteration, step_s = int(last["iteration"]), last.get("step_s")
    if end is None or iteration > end:  # carried on with an end that config.yaml does not have
        lines = [f"iteration {iteration}, epoch {last.get('epoch', 0):.2f}"]
    else:
        left = ""
        if iteration >= end:
            left = ", done"
        elif step_s:
            left = f", {duration((end - iteration) * step_s)} of training left at this speed"
        share = 100 * iteration / end
        lines = [f"iteration {iteration} of {end} ({share:.1f} %){left}"]
    shown = [
        f"{name} {last[key]:.{digits}f}{unit}"
        for key, name, digits, unit in (
            ("loss", "loss", 3, ""),
            ("images_per_s", "", 1, " images/s"),
            ("rate", "rate", 4, ""),
        )
        if isinstance(last.get(key), int | float)
    ]
    lines.append(", ".join(word.strip() for word in shown))
    scores = [
        (e["AP"], e["iteration"]) for e in evaluations if isinstance(e.get("AP"), int | float)
    ]
    if scores:
        newest, best = scores[-1], max(scores)
        lines.append(
            f"mmAP {newest[0]:.3f} at iteration {newest[1]}, best {best[0]:.3f} at {best[1]}"
        )
    return lines


def attempts(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The last few attempts, one a line, from ``jobs.jsonl``."""
    starts = [record for record in records if record.get("event") == "start"]
    ends = {
        (record.get("job"), record.get("restart")): record
        for record in records
        if record.get("event") == "end"
    }
    launchers = {
        (record.get("job"), record.get("restart")): record.get("launcher")
        for record in records
        if record.get("event") == "launch"
    }
    lines = []
    if len(starts) > _SHOWN:
        lines.append(f"{len(starts)} attempts; the last {_SHOWN}:")
    for start in starts[-_SHOWN:]:
        key = (start.get("job"), start.get("restart"))
        again = f" restart {key[1]}" if key[1] else ""
        count, tasks = len(start.get("nodes") or ()), start.get("tasks_per_node", "?")
        text = f"attempt: job {key[0]}{again}, {counted(count, 'node')} × {tasks}"
        if evaluators := start.get("evaluators"):
            text += f", of which {evaluators} evaluate"
        by = f" by {launchers[key]}" if launchers.get(key) else ""
        text += f"{by}, {when(start.get('time'))}"
        lines.append(f"{text}: {_ending(ends.get(key))}")
    if starts and (log := starts[-1].get("log")):
        lines.append(f"log: {log}")
    return lines


def _ending(end: Mapping[str, Any] | None) -> str:
    if end is None:
        return "no end noted (running, or killed)"
    outcome = end.get("outcome") or {}
    said = str(outcome.get("message") or end.get("reason") or "no reason noted").splitlines()[0]
    at = outcome.get("iteration")
    text = f"code {outcome['code']}, {said}" if "code" in outcome else said
    text += f" (iteration {at})" if at is not None else ""
    return text + ("; requeued" if end.get("requeued") and "requeued" not in text else "")


def when(seconds: object) -> str:
    """A time of day, in the machine's own zone."""
    if not isinstance(seconds, int | float):
        return "?"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
