"""The course of a job: prepare, launch, wait, decide."""

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from megdet_hvd.checkpoint.naming import iteration_of, list_checkpoints
from megdet_hvd.checkpoint.recovery import bring_back_best, newest_sound_checkpoint, set_aside
from megdet_hvd.cluster import handover
from megdet_hvd.cluster.allocation import Allocation
from megdet_hvd.cluster.launchers import (
    Launcher,
    choose_launcher,
    horovodrun_words,
    in_container,
    mpirun_words,
    passed_on,
    pmix_of,
    srun_words,
)
from megdet_hvd.cluster.outcome import Outcome, read_outcome
from megdet_hvd.cluster.site import Site
from megdet_hvd.cluster.time_limits import start_limit_s, start_variables
from megdet_hvd.errors import RunError, UserError
from megdet_hvd.slurm_job import lost_nodes, record, slurm
from megdet_hvd.slurm_job.decide import (
    FAULT,
    FINISHED,
    NO_REQUEUE,
    STOPPED,
    USER_ERROR,
    Decision,
    decide,
)
from megdet_hvd.slurm_job.nodes import prepare_nodes
from megdet_hvd.slurm_job.rank_logs import last_words
from megdet_hvd.slurm_job.words import Wish, rank_words

_LOOK_S = 0.5
"""Between two looks at the launcher and the stop file."""
_HOSTS_SHOWN = 4
_REQUEUED_S = 300
"""For Slurm to end the script of a job that it has requeued."""


@dataclass(frozen=True)
class Job:
    """What a job knows once its words are read."""

    allocation: Allocation
    site: Site
    wish: Wish

    @property
    def logs(self) -> Path:
        """Where this attempt's files lie, in the run folder."""
        name = f"{self.allocation.job}-{self.allocation.restarts}"
        return self.wish.folder / "logs" / name

    @property
    def stop_file(self) -> Path:
        """Where rank 0 looks for the wish to stop: in a container, too, the run folder is there."""
        return self.logs / "stop"

    @property
    def outcome(self) -> Path:
        """Where the ranks say how they ended."""
        return self.logs / "outcome.json"


def say(text: str) -> None:
    """A line of the driver's own, in the job's log."""
    print(f"job: {text}", flush=True)


def run_job(job: Job, environ: Mapping[str, str]) -> int:
    """Run the job's program on all its nodes; returns the job's exit code.

    Does not return where the job is requeued: Slurm ends it.

    Raises:
        UserError: the run folder can't be used.
    """
    _make_folders(job)
    introduce(job)
    refuse_company(job)
    set_damaged_aside(job.wish.folder)
    before = _newest(job)
    note_file = Path(environ[handover.NOTE])
    _record(
        job,
        "start",
        nodes=list(job.allocation.hosts),
        tasks_per_node=job.allocation.tasks_per_node,
        log=slurm.own_log(),
        rank_logs=str(job.logs),
    )
    early = Outcome(STOPPED, "told to stop before the ranks started")
    try:
        launcher, words, full = _command(job, environ)
    except (UserError, RunError) as error:
        # Slurm's TERM ends what prepares the nodes, too.
        if _note(note_file) is not None:
            return _end(job, early, 0, note_file, before)
        print(f"error: {error}", file=sys.stderr, flush=True)
        code = USER_ERROR if isinstance(error, UserError) else FAULT
        return _end(job, Outcome(code, str(error)), code, note_file, before)
    if _note(note_file) is not None:
        return _end(job, early, 0, note_file, before)
    _record(job, "launch", launcher=launcher)
    say(f"started by: {shlex.join(words)}")
    code = _wait(slurm.start_program(words, full), note_file, job.stop_file)
    return _end(job, read_outcome(job.outcome), code, note_file, before)


def _command(job: Job, environ: Mapping[str, str]) -> tuple[Launcher, list[str], dict[str, str]]:
    """Prepare the nodes; the launcher, its words, and what its environment is."""
    prepared = prepare_nodes(job.allocation, job.site, environ)
    python = sys.executable
    if prepared.environment is not None:
        python = str(prepared.environment / "bin" / "python")
    interpreter = in_container(job.site.container, python)
    full = {**environ, **_variables(job, environ, prepared.data_root)}
    launcher, words = _launcher(job, interpreter, full)
    return launcher, [*words, *interpreter, *rank_words(job.wish)], full


def _newest(job: Job) -> int:
    """Steps that the run's newest checkpoint holds; -1: there is none."""
    found = list_checkpoints(job.wish.folder / "checkpoints")
    steps = iteration_of(found[-1]) if found else None
    return -1 if steps is None else steps


def introduce(job: Job) -> None:
    """The first lines of the log: where everything is."""
    allocation, folder = job.allocation, job.wish.folder.absolute()
    hosts, more = allocation.hosts[:_HOSTS_SHOWN], len(allocation.hosts) - _HOSTS_SHOWN
    shown = ", ".join(hosts) + (f" and {more} more" if more > 0 else "")
    again = f", requeued {allocation.restarts} times" if allocation.restarts > 1 else ""
    again = ", requeued once" if allocation.restarts == 1 else again
    nodes = f"{len(allocation.hosts)} {'node' if len(allocation.hosts) == 1 else 'nodes'}"
    say(
        f"Slurm job {allocation.job} ({allocation.name}){again}: {nodes} × "
        f"{allocation.tasks_per_node} processes on {shown}"
    )
    say(f"log of rank 0: {slurm.own_log() or 'this output'}")
    say(f"logs of the other ranks: {job.logs.absolute()}/rank_NNNN.log")
    say(f"run folder: {folder}")


def refuse_company(job: Job) -> None:
    """Two jobs that write one run would spoil it; one of them may be a requeue of long ago.

    Raises:
        UserError: the job that worked in this run last still waits or runs.
    """
    other = record.last_job(record.read(job.wish.folder))
    if other is None or other == job.allocation.job:
        return
    state = slurm.standing(other)
    if state is not None:
        raise UserError(
            f"{job.wish.folder}: job {other} works in this run too, and is {state.lower()}; wait "
            f"for its end, or end it with a checkpoint: scancel --batch --signal=USR2 {other}"
        )


def set_damaged_aside(folder: Path) -> None:
    """Let the run carry on from its newest checkpoint that is whole; what was damaged is kept."""
    try:
        sound, damaged = newest_sound_checkpoint(folder)
        for path in set_aside(damaged):
            say(f"damaged, and set aside: {path}")
        if damaged and sound is None:
            sound = bring_back_best(damaged[0].parent)
        if damaged:
            say(
                f"the run carries on from {sound.name}" if sound else "it starts anew: none is left"
            )
    except OSError as error:
        raise UserError(
            f"{folder}: its checkpoints can't be read ({error.strerror}); mend that first"
        ) from None


def _make_folders(job: Job) -> None:
    try:
        job.logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{job.logs}: the run folder can't be written ({error.strerror}); choose another "
            "place with output=FOLDER"
        ) from None
    for left in (job.outcome, job.stop_file):
        left.unlink(missing_ok=True)


def _variables(job: Job, environ: Mapping[str, str], data_root: Path | None) -> dict[str, str]:
    """What the ranks are told; what the user's environment says of start limits stands."""
    allocation = job.allocation
    found = {
        handover.STOP_FILE: str(job.stop_file.absolute()),
        handover.OUTCOME: str(job.outcome.absolute()),
        handover.RANK_LOGS: str(job.logs.absolute()),
        handover.NODES: str(len(allocation.hosts)),
        handover.TASKS_PER_NODE: str(allocation.tasks_per_node),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }
    if allocation.cpus_per_task is not None and job.site.bind == "cores":
        found[handover.CPUS_PER_TASK] = str(allocation.cpus_per_task)
    if data_root is not None:
        found["COCO_ROOT"] = str(data_root)
    limits = start_variables(allocation.tasks)
    return found | {name: value for name, value in limits.items() if name not in environ}


def _launcher(
    job: Job, interpreter: Sequence[str], environ: Mapping[str, str]
) -> tuple[Launcher, list[str]]:
    """The launcher that the site has, or that is set, and its words."""
    allocation, site = job.allocation, job.site
    nodes = len(allocation.hosts)
    plugin = pmix_of(slurm.mpi_list(), site.srun_mpi)
    srun_problem = f"srun --mpi=list has no {site.srun_mpi}" if plugin is None else None
    if plugin is not None and site.launcher in ("auto", "srun"):
        limit_s = start_limit_s(2 * nodes)
        srun_problem = slurm.srun_problem(plugin, nodes, interpreter, limit_s)
    mpirun_problem = slurm.mpirun_problem(environ.get("PATH", ""))
    asked = site.launcher == "horovodrun" or (srun_problem and mpirun_problem)
    chosen, notes = choose_launcher(
        site.launcher,
        nodes=nodes,
        srun_problem=srun_problem,
        mpirun_problem=mpirun_problem,
        ssh_problem=slurm.ssh_problem(allocation.hosts) if asked else "not tried",
    )
    for note in notes:
        say(note)
    if chosen == "srun":
        return chosen, srun_words(
            allocation, mpi=plugin or site.srun_mpi, bind=site.bind == "cores"
        )
    if chosen == "mpirun":
        exports = environ.get(handover.SITE_EXPORTS, "").split()
        return chosen, mpirun_words(allocation, passed_on(environ, exports))
    return chosen, horovodrun_words(allocation)


def _wait(running: "subprocess.Popen[bytes]", note_file: Path, stop_file: Path) -> int:
    """The launcher's exit code, once it has ended; a note is handed on to the ranks meanwhile."""
    told = refused = False
    while (code := running.poll()) is None:
        if not told and (note := _note(note_file)) is not None:
            try:
                stop_file.write_text(note, encoding="utf-8")
                say(f"{note}; the ranks finish their step and write a checkpoint")
                told = True
            except OSError as error:  # tried again
                if not refused:
                    say(
                        f"{note}; {stop_file} can't be written ({error.strerror}) so far, so the "
                        "ranks hear nothing of it"
                    )
                refused = True
        time.sleep(_LOOK_S)
    return code


def _note(note_file: Path) -> str | None:
    try:
        return note_file.read_text(encoding="utf-8").strip() or "told to stop"
    except OSError:
        return None


def _record(job: Job, event: str, **values: object) -> None:
    own = {"job": job.allocation.job, "restart": job.allocation.restarts}
    try:
        record.append(job.wish.folder, event, **own, **values)
    except OSError as error:
        say(f"{job.wish.folder / record.FILE}: can't be written ({error.strerror})")


def _end(job: Job, outcome: Outcome | None, code: int, note_file: Path, before: int) -> int:
    """Decide, say so, and requeue the job or return its exit code.

    ``before``: steps of the newest checkpoint that this attempt found.
    """
    records, number = record.read(job.wish.folder), job.allocation.job
    note = _note(note_file)
    progressed = _newest(job) > before
    decision = decide(
        outcome,
        code,
        note=note,
        job_runs=slurm.job_runs(number),
        progressed=progressed,
        idle=record.idle_starts_of(records, number),
        failures=record.failures_of(records, number),
        allowed=job.site.requeue_on_failure,
    )
    ended = f"the launcher ended with exit code {code}"
    if outcome is not None and outcome.code != FINISHED:
        ended += f"; the ranks say: {outcome.message or f'exit code {outcome.code}'}"
    elif outcome is None and code != 0:
        ended += "; no rank could say why: killed, out of memory, or a node is gone"
    if decision.code not in (FINISHED, STOPPED) or decision.failure:
        for line in last_words(job.logs):
            say(line)
    say(f"{ended}; {decision.words}")
    told = asdict(outcome) if outcome is not None else {"code": code, "message": ""}
    said = {"outcome": told, "failure": decision.failure, "reason": decision.words}
    said["progressed"] = progressed
    _record(job, "end", requeued=decision.requeue, **said)
    if decision.requeue:
        say(_requeue(job, decision, note_file))
        _record(job, "end", requeued=False, **said)
    return decision.code


def _requeue(job: Job, decision: Decision, note_file: Path) -> str:
    """Put the job back into the queue; returns only where that failed, with words for the log."""
    # Slurm ends this script with TERM, which must be let in now.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if decision.failure:
        hosts = job.allocation.hosts
        lost_nodes.wait_until_seen(hosts, say, enough=lambda: _note(note_file) is not None)
        if (note := _note(note_file) or "").startswith(NO_REQUEUE):
            return f"not requeued ({note})"
    problem = slurm.requeue(job.allocation.job)
    if problem is None:
        time.sleep(_REQUEUED_S)
        problem = "it was accepted, and nothing has happened"
    return (
        f"Slurm did not requeue the job ({problem}); carry on by hand: sbatch … --resume "
        f"{shlex.quote(str(job.wish.folder))}"
    )
