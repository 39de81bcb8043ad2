"""After the ranks: what becomes of the job is decided, said, noted and done."""

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from megdet_hvd.cluster.allocation import read_allocation
from megdet_hvd.cluster.outcome import Outcome
from megdet_hvd.cluster.site import site_from_variables
from megdet_hvd.config.load import to_yaml
from megdet_hvd.errors import FINISHED, RUN_ERROR, STOPPED, STORAGE_ERROR, USER_ERROR
from megdet_hvd.scontrol import NOTHING
from megdet_hvd.slurm_job import lost_nodes, node_check, record, slurm, successor
from megdet_hvd.slurm_job.decide import NO_REQUEUE, Decision, decide
from megdet_hvd.slurm_job.job import BatchJob, newest, note, say
from megdet_hvd.slurm_job.node_facts import can_do_without
from megdet_hvd.slurm_job.notes import read_note
from megdet_hvd.slurm_job.rank_logs import last_words
from megdet_hvd.slurm_job.requeue import is_disabled, requeue

_REQUEUED_S = 300
"""For Slurm to end the script of a job that it has requeued."""


def end_job(
    job: BatchJob, outcome: Outcome | None, code: int, notes: tuple[Path, ...], before: int | None
) -> int:
    """Decide, say so, and requeue the job or return its exit code.

    ``before``: steps of the newest checkpoint that this attempt found; None: it could not look.
    """
    records, number = record.read(job.arguments.folder), job.allocation.job
    why = read_note(notes)
    try:
        progressed = before is not None and newest(job) > before
    except OSError:  # told of elsewhere, if it matters
        progressed = False
    facts = slurm.job_facts(job.allocation.slurm_id)
    state = facts.get("JobState")
    decision = decide(
        outcome,
        code,
        note=why,
        job_runs=state in (None, "RUNNING"),
        progressed=progressed,
        idle=record.idle_starts_of(records, number),
        failures=record.failures_of(records, number),
        allowed=job.site.requeue_on_failure,
        comes_again=_comes_again(facts, job.allocation.restarts),
    )
    ended = f"the launcher ended with exit code {code}"
    if outcome is not None and outcome.code != FINISHED:
        ended += f"; the ranks say: {outcome.message or f'exit code {outcome.code}'}"
    elif outcome is None and code not in (FINISHED, USER_ERROR, RUN_ERROR, STORAGE_ERROR):
        ended += "; no rank could say why: killed, out of memory, or a node is gone"
    if decision.code not in (FINISHED, STOPPED) or decision.failure:
        for line in last_words(job.logs):
            say(line)
    say(f"{ended}; {decision.words}")
    told = asdict(outcome) if outcome is not None else {"code": code, "message": ""}
    said = {"outcome": told, "failure": decision.failure, "reason": decision.words}
    said["progressed"] = progressed
    _keep_config(job)
    note(job, "end", requeued=decision.requeue, **said)
    if decision.requeue and (words := _requeue(job, decision, notes)) is not None:
        say(words)
        note(job, "end", requeued=False, **said)
    return decision.code


def _comes_again(facts: Mapping[str, str], restarts: int) -> bool:
    """Whether Slurm has put the job back into the queue without being asked by this script."""
    if facts.get("JobState") in ("PENDING", "REQUEUED"):
        return True
    again = facts.get("Restarts", "")
    return facts.get("JobState") == "COMPLETING" and again.isdigit() and int(again) > restarts


def _keep_config(job: BatchJob) -> None:
    """A run whose folder was moved away in mid-run goes on under its name: with a configuration."""
    file = job.arguments.folder / "config.yaml"
    try:
        if newest(job) < 0 or file.exists():
            return
        file.write_text(to_yaml(job.arguments.config), encoding="utf-8")
        say(f"{file} was gone (was the folder moved in mid-run?) and is written anew")
    except OSError as error:
        say(f"{file} is gone, and can't be written ({error.strerror}): no resume without it")


def _requeue(job: BatchJob, decision: Decision, notes: tuple[Path, ...]) -> str | None:
    """Put the job back into the queue; words for the log where that failed.

    Mostly does not return where it went well: Slurm ends this process.
    """
    # Slurm ends this script with TERM, which must be let in now.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    allocation, folder = job.allocation, job.arguments.folder
    bad: dict[str, str] = {}
    if decision.failure:
        bad = _bad_nodes(job, lambda: read_note(notes) is not None)

    def unwanted() -> bool:
        return (read_note(notes) or "").startswith(NO_REQUEUE)

    if unwanted():
        return f"not requeued ({read_note(notes)})"
    problem = requeue(allocation.slurm_id, bad, say, enough=unwanted)
    if problem is None:
        if bad:
            return None
        time.sleep(_REQUEUED_S)
        problem = "it was accepted, and nothing has happened"
    elif is_disabled(problem):
        number, told = _succeed(job, bad)
        if number is not None:
            say(
                f"Slurm does not requeue this job ({problem}): job {number} follows it, and "
                f"carries on {folder}"
            )
            return None
        problem += f", and sbatch: {told}"
    return (
        f"Slurm did not requeue the job ({problem}); carry on by hand: sbatch … --resume "
        f"{shlex.quote(str(folder))}"
    )


def _bad_nodes(job: BatchJob, enough: Callable[[], bool]) -> dict[str, str]:
    """Nodes that the next start shall do without; none where it could not."""
    hosts = job.allocation.hosts
    words = node_check.words(job.arguments.folder.absolute(), sys.executable)
    bad = lost_nodes.find_bad(
        hosts, lambda: slurm.probe_nodes(len(hosts), words, os.environ), say, enough=enough
    )
    if not bad:
        return {}
    facts = slurm.job_facts(job.allocation.slurm_id)
    why_not = can_do_without(bad, job=facts, nodes=slurm.node_facts(), hosts=hosts)
    if why_not is None:
        return bad
    for node, why in bad.items():
        say(f"{node} is bad ({why}), and can't be left out: {why_not}")
    return {}


def _succeed(job: BatchJob, bad: Mapping[str, str]) -> tuple[int | None, str]:
    """Submit a job that follows this one; its number, or None and why not."""
    allocation = job.allocation
    queue = slurm.own_queue(successor.QUEUE_FORMAT)
    follows = successor.follower(queue, job=allocation.slurm_id, name=allocation.name)
    if follows is not None:
        note(job, "successor", successor=follows)
        return follows, ""
    facts = slurm.job_facts(allocation.slurm_id)
    if bad:
        own = facts.get("ExcNodeList", "")
        out = [*([] if own in NOTHING else [own]), *bad]
        facts = {**facts, "ExcNodeList": ",".join(out)}
    words = successor.options(
        facts,
        job=allocation.slurm_id,
        tasks_per_node=allocation.tasks_per_node,
        nodes=len(allocation.hosts),
        log=slurm.own_log(),
    )
    number, told = successor.submit(
        words, os.environ, job.arguments.folder, member=allocation.member
    )
    if number is not None:
        note(job, "successor", successor=number)
        for node, why in bad.items():
            say(f"{node} is left out there: {why}")
    return number, told


def requeue_before_start(environ: Mapping[str, str]) -> None:
    """Requeue a job whose configuration storage did not give up, as often as after a failure.

    Returns only where that is not to be, or failed.
    """
    allocation, site = read_allocation(environ), site_from_variables(environ)
    if allocation.restarts >= site.requeue_on_failure:
        return
    say(f"requeued after a failure of the storage ({allocation.restarts + 1} starts so far)")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    problem = requeue(allocation.slurm_id, {}, say)
    if problem is None:
        time.sleep(_REQUEUED_S)
        problem = "it was accepted, and nothing has happened"
    say(f"Slurm did not requeue the job ({problem})")
