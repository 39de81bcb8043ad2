"""Whether a job's time limit leaves it any time to train. Pure.

Slurm tells a job to stop some time before its limit (``--signal``). Where starting takes longer
than what is left, the job is requeued before its first step, again and again.
"""

import math
import re
from collections.abc import Mapping

from megdet_hvd.cluster.time_limits import start_limit_s
from megdet_hvd.submit.job import JobRequest
from megdet_hvd.submit.report import CheckReport

_EARLY_S = 60
"""Slurm may send the signal so much earlier than asked (its manual, at ``--signal``)."""
_DEFAULT_OFFSET_S = 60
"""What ``--signal=USR1`` means."""
_TIME = re.compile(
    r"(?:(?P<days>\d+)-(?P<h>\d+)(?::(?P<m>\d+)(?::(?P<s>\d+))?)?"
    r"|(?:(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+))"
    r"|(?P<only>\d+))"
)
_SIGNAL = re.compile(r"(?:[RrBb]+:)?\w+(?:@(?P<offset>\d+))?")


def check_time(
    report: CheckReport, job: JobRequest, tasks: int, environ: Mapping[str, str]
) -> None:
    """Compare ``--time`` with ``--signal`` and the start of ``tasks`` processes in all."""
    time = _option(job, "time", environ.get("SBATCH_TIMELIMIT"))
    signal = _option(job, "signal", environ.get("SBATCH_SIGNAL"))
    limit, offset = seconds_of(time or ""), signal_offset_s(signal or "")
    if limit is None or offset is None:
        return
    start = start_limit_s(tasks)
    needed = offset + _EARLY_S + start
    if limit <= needed:
        report.problem(
            f"--time={time} is too short: Slurm tells the job to stop {offset} s before its end "
            f"(--signal={signal}), or up to {_EARLY_S} s earlier, and starting {tasks} processes "
            f"may take {start} s, so it could be stopped before its first step; "
            f"--time={needed // 60 + 1} (minutes) is the least"
        )


def seconds_of(time: str) -> int | None:
    """Seconds of one of sbatch's forms, in whole minutes as Slurm counts them; None: no limit.

    Forms: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes,
    days-hours:minutes:seconds. Zero and words such as UNLIMITED are no limit; sbatch itself
    refuses what is none of these.
    """
    match = _TIME.fullmatch(time.strip())
    if match is None:
        return None
    found = {name: int(text or 0) for name, text in match.groupdict().items()}
    seconds = found["days"] * 86400 + (found["h"] + found["hours"]) * 3600
    seconds += (found["m"] + found["minutes"] + found["only"]) * 60 + found["s"] + found["seconds"]
    return math.ceil(seconds / 60) * 60 or None


def signal_offset_s(signal: str) -> int | None:
    """Seconds before the end, of ``--signal``'s value; None: no signal is asked for."""
    match = _SIGNAL.fullmatch(signal.strip())
    if match is None:
        return None
    return _DEFAULT_OFFSET_S if match["offset"] is None else int(match["offset"])


def _option(job: JobRequest, name: str, environment: str | None) -> str | None:
    """What counts: sbatch's command line, then its environment, then the template."""
    return job.options.get(name) or environment or job.template_options.get(name)
