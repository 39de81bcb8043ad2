"""What Slurm says of a job: running, waiting and why, ended and how."""

import signal
from dataclasses import dataclass

from megdet_hvd.scontrol import read_job, read_records
from megdet_hvd.submit.commands import ask

_REASONS = {
    "Priority": "jobs with a higher priority come first",
    "Resources": "it is next, and waits for nodes to become free",
    "BeginTime": "its time to begin has not come; after a requeue Slurm waits about 2 minutes",
    "QOSMaxJobsPerUserLimit": "you have as many jobs running as your QOS allows",
    "AssocGrpGRES": "your account has all the GPUs in use that it may have",
    "AssocMaxJobsLimit": "your account has as many jobs running as it may have",
    "PartitionTimeLimit": "it asks for more time than the partition gives: it will never start",
    "PartitionNodeLimit": "it asks for more nodes than the partition gives: it will never start",
    "ReqNodeNotAvail": "nodes that it needs are down, drained or reserved",
    "JobHeldUser": "you hold it: scontrol release JOB",
    "JobHeldAdmin": "the site holds it; after many requeues Slurm does so, too",
    "launch failed requeued held": "starting it failed on a node; scontrol release JOB",
}
_NOT_LAUNCHED = "53"
"""In the place of a signal, Slurm's word for a job that never ran."""
_SIGNALS = {str(int(number)) for number in signal.Signals}
_FORMAT = "%T|%r|%S|%L|%D|%N|%j|%Z"


@dataclass(frozen=True)
class Queued:
    """A job in Slurm's hands."""

    state: str
    """``RUNNING``, ``PENDING`` and so on."""
    reason: str
    """Why it waits; ``None`` as Slurm's word for no reason."""
    start: str
    """When it started, or is expected to."""
    left: str
    """Time left of its limit."""
    nodes: str
    """How many."""
    hosts: str
    name: str
    """The job's."""
    folder: str
    """Where it was submitted from."""


def parse_queue(text: str) -> Queued | None:
    """The last whole line of squeue's answer; None: the job is not in the queue."""
    rows = [line.split("|") for line in text.splitlines() if line.count("|") == 7]
    return Queued(*(word.strip() for word in rows[-1])) if rows else None


def queue_words(job: str, found: Queued) -> list[str]:
    """For the screen."""
    if found.state == "PENDING":
        meaning = next((m for r, m in _REASONS.items() if r in found.reason), "")
        lines = [f"job {job} waits: {found.reason}" + (f" ({meaning})" if meaning else "")]
        known = found.start not in ("", "N/A")
        lines.append(f"expected to start: {found.start if known else 'Slurm does not say'}")
        return lines
    since = f", since {found.start}, {found.left} of its time left"
    count = "1 node" if found.nodes == "1" else f"{found.nodes} nodes"
    hosts = f" on {count} ({found.hosts})" if found.hosts else ""
    return [f"job {job} is {found.state.lower()}{hosts}{since}"]


def ask_queue(job: str) -> tuple[Queued | None, str | None]:
    """The job in the queue; None and why not, where Slurm can't be asked."""
    answer = ask(["squeue", "--noheader", f"--format={_FORMAT}", f"--jobs={job}"])
    if answer.no_cluster:
        lines = answer.text.splitlines()
        return None, lines[-1] if lines else "no answer"
    found = parse_queue(answer.out)
    if found is not None and found.state == "PENDING":
        expected = ask(["squeue", "--start", "--noheader", f"--format={_FORMAT}", f"--jobs={job}"])
        found = parse_queue(expected.out) or found
    return found, None


def ask_array(array: str) -> dict[int, str]:
    """The members in the queue, by number, and how they stand; empty: none, or no answer."""
    answer = ask(["squeue", "--noheader", "--array", "--format=%K|%T|%r", f"--jobs={array}"])
    found = {}
    for line in answer.out.splitlines():
        member, _, rest = line.strip().partition("|")
        state, _, reason = rest.partition("|")
        if member.isdigit() and state:
            waits = state == "PENDING" and reason not in ("", "None")
            found[int(member)] = f"waits: {reason}" if waits else state.lower()
    return found


def ask_ended(job: str) -> str | None:
    """How Slurm says that a job ended; None: it no longer knows."""
    answer = ask(["sacct", "--noheader", "--parsable2", "-X", "--format=State,ExitCode", "-j", job])
    rows = [line for line in answer.out.splitlines() if line.count("|") == 1]
    if answer.code == 0 and rows:
        state, _, code = rows[-1].partition("|")
        return f"{state}, {exit_words(code)}"
    answer = ask(["scontrol", "show", "job", job])
    facts = read_job(answer.out, job)
    if answer.code == 0 and "JobState" in facts:
        return f"{facts['JobState']}, {exit_words(facts.get('ExitCode', '?'))}"
    return None


def exit_words(code: str) -> str:
    """Slurm's ``CODE:SIGNAL``, in words."""
    number, _, signalled = code.partition(":")
    if signalled in ("", "0"):
        return f"exit code {number}"
    if signalled == _NOT_LAUNCHED:
        return (
            "not started: Slurm could not open its log or run its script (is the folder of the log "
            "there, on the nodes too?)"
        )
    name = signal.Signals(int(signalled)).name if signalled in _SIGNALS else f"signal {signalled}"
    return f"ended by {name}" + (f", exit code {number}" if number != "0" else "")


def ask_logs(array: str) -> dict[int, str]:
    """The logs of an array's members, by number, as far as Slurm still knows."""
    records = read_records(ask(["scontrol", "show", "job", array]).out)
    return {
        int(one["ArrayTaskId"]): one["StdOut"]
        for one in records
        if one.get("ArrayJobId") == array
        and one.get("ArrayTaskId", "").isdigit()
        and one.get("StdOut")
    }


def ask_log(job: str) -> str | None:
    """The job's log, as Slurm knows it; None: it does not."""
    return read_job(ask(["scontrol", "show", "job", job]).out, job).get("StdOut")
