"""Where Slurm requeues no job: another job that carries the run on, submitted by the first.

It waits for the first one's end (``--dependency=afterany``), has its options, runs its script, and
names its run folder (``--run``).
"""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from megdet_hvd.cluster.driver_variables import SCRIPT, WORDS, WORDS_JOINED_BY
from megdet_hvd.cluster.job_array import member_words
from megdet_hvd.scontrol import NOTHING

_SBATCH_S = 300
_KEPT = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")
"""Which Slurm to ask, and as whom; all else of SLURM_ is the first job's own."""
_SAME = {
    "JobName": "job-name",
    "Partition": "partition",
    "Account": "account",
    "QOS": "qos",
    "TimeLimit": "time",
    "Features": "constraint",
    "ExcNodeList": "exclude",
    "ReqNodeList": "nodelist",
    "Reservation": "reservation",
    "Licenses": "licenses",
    "Comment": "comment",
    "WCKey": "wckey",
    "Network": "network",
}
"""Fields of ``scontrol show job``, and sbatch's options."""
QUEUE_FORMAT = "%i|%E|%j"
_SHARED = {"YES": "--oversubscribe", "OK": None, "NO": "--exclusive", "USER": "--exclusive=user"}


def options(
    facts: Mapping[str, str], *, job: int | str, tasks_per_node: int, nodes: int, log: str | None
) -> list[str]:
    """The options of sbatch for a job like this one. Pure.

    Args:
        facts: what Slurm says of the job.
        job: its number, or ``ARRAY_MEMBER``.
        tasks_per_node: processes on each of its ``nodes``.
        nodes: how many.
        log: the file that its output goes to; the new one's gets the new number in its place.
    """
    words = [f"--dependency=afterany:{job}", "--no-requeue", "--open-mode=append"]
    for field, option in _SAME.items():
        value = facts.get(field, "")
        if value not in NOTHING and value.strip("*"):
            words.append(f"--{option}={value.strip('*')}")
    words += [f"--nodes={nodes}", f"--ntasks-per-node={tasks_per_node}"]
    cpus = facts.get("CPUs/Task", "")
    if cpus.isdigit():
        words.append(f"--cpus-per-task={cpus}")
    if match := re.fullmatch(
        r"gres[:/]gpu[:=](?P<gpus>[\w.-]*:?\d+)", facts.get("TresPerNode", "")
    ):
        words.append(f"--gpus-per-node={match['gpus']}")
    for field, option in (("MinMemoryNode", "mem"), ("MinMemoryCPU", "mem-per-cpu")):
        if (memory := facts.get(field, "")) not in (*NOTHING, "0"):  # 0: the template says it
            words.append(f"--{option}={memory}")
    shared = _SHARED.get(facts.get("OverSubscribe", "OK"))
    if shared is not None:
        words.append(shared)
    name = None if log is None else _numbered(Path(log).name, job, facts)
    if log is not None and name is not None:
        words.append(f"--output={Path(log).parent / name}")
    return words


def _numbered(log: str, job: int | str, facts: Mapping[str, str]) -> str | None:
    """A log's name with ``%j`` for the job's number; None: it has none.

    The number may stand in the job's name, too, which stays: job 16 called ``megdet_16gpu``.
    """
    own, log = facts.get("JobName", "").replace("%", "%%"), log.replace("%", "%%")
    parts = log.split(own) if own else [log]
    for number in (str(job), facts.get("JobId", "")):  # %A_%a, or %j
        mark = rf"(?<!\d){number}(?!\d)"
        if number and any(re.search(mark, part) for part in parts):
            return own.join(re.sub(mark, "%j", part) for part in parts)
    return None


def follower(queue: str, *, job: int | str, name: str) -> int | None:
    """A job in the queue that follows this one already, of a chain that its user made. Pure.

    Args:
        queue: lines of ``squeue`` in :data:`QUEUE_FORMAT`, of this user's jobs.
        job: this one.
        name: its name; a job of another name that waits for it does something else afterwards.
    """
    for line in queue.splitlines():
        number, _, rest = line.partition("|")
        dependency, _, its_name = rest.partition("|")
        waits = "singleton" in dependency or re.search(rf":{job}(?!\d)", dependency)
        if number.isdigit() and number != str(job) and its_name == name and waits:
            return int(number)
    return None


def train_words(given: Sequence[str], folder: Path) -> list[str]:
    """What stands behind the template: the user's words, and the run to carry on. Pure."""
    names = [word.partition("=")[0] for word in given]
    if "--run" in names or "--resume" in names:
        return list(given)
    return [*given, "--run", str(folder.absolute())]


def environ_of(text: bytes) -> dict[str, str]:
    """Variables as they stand in ``/proc/PID/environ``, without the first job's own. Pure."""
    found = {}
    for part in text.split(b"\0"):
        name, sign, value = os.fsdecode(part).partition("=")
        if sign and (not name.startswith("SLURM_") or name in _KEPT):
            found[name] = value
    return found


def submit(
    words: Sequence[str], environ: Mapping[str, str], folder: Path, *, member: int | None = None
) -> tuple[int | None, str]:
    """The new job's number, or None, and what sbatch said.

    Args:
        words: options.
        environ: of this process; the new job's are those that the batch script began with.
        folder: the run's.
        member: the first job's number in its array; the new one is in none.
    """
    if not environ.get(SCRIPT):
        return None, f"{SCRIPT} is not set"
    given = environ.get(WORDS, "")
    own_words = member_words(given.split(WORDS_JOINED_BY) if given else [], member)
    behind = train_words(own_words, folder)
    try:
        own = environ_of(Path(f"/proc/{os.getppid()}/environ").read_bytes())
    except OSError:
        own = environ_of("\0".join(f"{k}={v}" for k, v in environ.items()).encode(errors="replace"))
    own["MEGDET_ROOT"] = environ.get("MEGDET_ROOT", str(Path.cwd()))
    command = ["sbatch", "--parsable", *words, environ[SCRIPT], *behind]
    where = environ.get("SLURM_SUBMIT_DIR") or None
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SBATCH_S,
            env=own,
            cwd=where,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    number = done.stdout.strip().partition(";")[0]
    if done.returncode or not number.isdigit():
        return None, (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
    return int(number), ""
