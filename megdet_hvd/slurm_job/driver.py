"""The course of a job: prepare, launch, wait, decide."""

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from megdet_hvd.checkpoint.recovery import set_damaged_aside
from megdet_hvd.cluster import driver_variables
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
from megdet_hvd.cluster.limits import low_limits, raise_open_files
from megdet_hvd.cluster.outcome import Outcome, read_outcome
from megdet_hvd.cluster.step_environ import step_environ
from megdet_hvd.cluster.time_limits import start_limit_s, start_variables
from megdet_hvd.errors import (
    FAULT,
    STOPPED,
    STORAGE_ERROR,
    USER_ERROR,
    RunError,
    StorageError,
    UserError,
)
from megdet_hvd.run_lock.lock import take
from megdet_hvd.slurm_job import presets, record, slurm, waiting
from megdet_hvd.slurm_job.after import end_job
from megdet_hvd.slurm_job.job import BatchJob, newest, note, say
from megdet_hvd.slurm_job.job_arguments import rank_words
from megdet_hvd.slurm_job.nodes import prepare_nodes
from megdet_hvd.slurm_job.notes import places, read_note
from megdet_hvd.storage import as_storage_error, is_transient

_HOSTS_SHOWN = 4


def run_job(job: BatchJob, environ: Mapping[str, str]) -> int:
    """Run the job's program on all its nodes; returns the job's exit code.

    Does not return where the job is requeued: Slurm ends it.

    Raises:
        UserError: the run folder can't be used.
    """
    notes = places(environ)
    try:
        _make_folders(job)
        introduce(job, environ)
        refuse_company(job)
        with _alone(job.wish.folder, environ):
            set_damaged_aside(job.wish.folder, say, all_of_them=True)
        before = newest(job)
    except (StorageError, OSError) as raised:
        error = as_storage_error(raised)
        if not isinstance(error, StorageError):
            raise
        print(f"error: {error}", file=sys.stderr, flush=True)
        return end_job(job, Outcome(STORAGE_ERROR, str(error)), STORAGE_ERROR, notes, None)
    note(
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
        if read_note(notes) is not None:
            return end_job(job, early, 0, notes, before)
        print(f"error: {error}", file=sys.stderr, flush=True)
        code = USER_ERROR if isinstance(error, UserError) else FAULT
        return end_job(job, Outcome(code, str(error)), code, notes, before)
    if read_note(notes) is not None:
        return end_job(job, early, 0, notes, before)
    note(job, "launch", launcher=launcher)
    say(f"started by: {shlex.join(words)}")
    code = waiting.wait(
        slurm.start_program(words, full),
        notes=notes,
        stop_file=job.stop_file,
        outcome=job.outcome,
        steps=lambda: slurm.steps(job.allocation.job),
        say=say,
    )
    return end_job(job, read_outcome(job.outcome), code, notes, before)


def _command(
    job: BatchJob, environ: Mapping[str, str]
) -> tuple[Launcher, list[str], dict[str, str]]:
    """Prepare the nodes; the launcher, its words, and what its environment is."""
    prepared = prepare_nodes(job.allocation, job.site, environ)
    python = sys.executable
    if prepared.environment is not None:
        python = str(prepared.environment / "bin" / "python")
    interpreter = in_container(job.site.container, python)
    full = step_environ({**environ, **_variables(job, environ, prepared.data_root)})
    for name in (
        driver_variables.NOTE,
        driver_variables.SCRIPT,
        driver_variables.WORDS,
    ):  # the driver's own
        full.pop(name, None)
    launcher, words = _launcher(job, interpreter, full)
    return launcher, [*words, *interpreter, *rank_words(job.wish)], full


def introduce(job: BatchJob, environ: Mapping[str, str]) -> None:
    """The first lines of the log: where everything is, and what the job was given with it.

    Raises:
        UserError: the system allows too little.
    """
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
    asked = environ.get(driver_variables.SITE_EXPORTS, "").split()
    if found := presets.named(environ, asked):
        say(
            f"set before the job, and so for all ranks: {presets.shown(environ, found)} (from "
            "your shell, a module or conda, not from the site file)"
        )
    for line in low_limits(raise_open_files()):
        say(f"limited by the system: {line}")


def refuse_company(job: BatchJob) -> None:
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
            f"{job.wish.folder}: job {other} works in this run too, and is {_said(state)}; wait "
            f"for its end, or end it with a checkpoint: scancel --batch --signal=USR2 {other}"
        )


@contextmanager
def _alone(folder: Path, environ: Mapping[str, str]) -> Iterator[None]:
    """Hold the run folder, as the ranks do later: nobody else may write there meanwhile."""
    try:
        lock = take(folder, say=say, environ=environ)
    except OSError as error:
        if is_transient(error):
            raise
        raise UserError(f"{folder}: the run folder can't be written ({error.strerror})") from None
    try:
        yield
    finally:
        lock.release()


def _said(state: str) -> str:
    return state if state == slurm.SILENT else state.lower()


def _make_folders(job: BatchJob) -> None:
    try:
        job.logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if is_transient(error):
            raise
        raise UserError(
            f"{job.logs}: the run folder can't be written ({error.strerror}); choose another "
            "place with output=FOLDER"
        ) from None
    for left in (job.outcome, job.stop_file):
        left.unlink(missing_ok=True)


def _variables(job: BatchJob, environ: Mapping[str, str], data_root: Path | None) -> dict[str, str]:
    """What the ranks are told; what the user's environment says of start limits stands."""
    allocation = job.allocation
    found = {
        driver_variables.STOP_FILE: str(job.stop_file.absolute()),
        driver_variables.OUTCOME: str(job.outcome.absolute()),
        driver_variables.RANK_LOGS: str(job.logs.absolute()),
        driver_variables.NODES: str(len(allocation.hosts)),
        driver_variables.TASKS_PER_NODE: str(allocation.tasks_per_node),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }
    if allocation.cpus_per_task is not None and job.site.bind == "cores":
        found[driver_variables.CPUS_PER_TASK] = str(allocation.cpus_per_task)
    if data_root is not None:
        found["COCO_ROOT"] = str(data_root)
    limits = start_variables(allocation.tasks)
    return found | {name: value for name, value in limits.items() if name not in environ}


def _launcher(
    job: BatchJob, interpreter: Sequence[str], environ: dict[str, str]
) -> tuple[Launcher, list[str]]:
    """The launcher that the site has, or that is set, and its words.

    What keeps MPI from starting is taken out of ``environ``.
    """
    allocation, site = job.allocation, job.site
    nodes = len(allocation.hosts)
    limit_s = start_limit_s(2 * nodes)
    plugin = pmix_of(slurm.mpi_list(), site.srun_mpi)
    srun_problem = f"srun --mpi=list has no {site.srun_mpi}" if plugin is None else None
    if plugin is not None and site.launcher in ("auto", "srun"):
        srun_problem = _try(
            lambda given: slurm.srun_problem(plugin, nodes, interpreter, limit_s, given), environ
        )
    mpirun_problem = slurm.mpirun_problem(environ.get("PATH", ""))
    wanted = site.launcher == "mpirun" or bool(srun_problem)
    # Without presets it is left to the ranks: a try takes seconds.
    if mpirun_problem is None and wanted and presets.suspects(environ):
        mpirun_problem = _try(
            lambda given: slurm.mpirun_fails(nodes, interpreter, limit_s, given), environ
        )
    asked = site.launcher == "horovodrun" or (srun_problem and mpirun_problem)
    chosen, passed = choose_launcher(
        site.launcher,
        nodes=nodes,
        srun_problem=srun_problem,
        mpirun_problem=mpirun_problem,
        ssh_problem=slurm.ssh_problem(allocation.hosts) if asked else "not tried",
    )
    for line in passed:
        say(line)
    if chosen == "srun":
        return chosen, srun_words(
            allocation, mpi=plugin or site.srun_mpi, bind=site.bind == "cores"
        )
    if chosen == "mpirun":
        exports = environ.get(driver_variables.SITE_EXPORTS, "").split()
        return chosen, mpirun_words(allocation, passed_on(environ, exports))
    return chosen, horovodrun_words(allocation)


def _try(
    problem_with: Callable[[Mapping[str, str]], str | None], environ: dict[str, str]
) -> str | None:
    """Why MPI does not start; None: it does, perhaps without presets that are taken out now."""
    problem = problem_with(environ)
    for names in presets.suspects(environ) if problem is not None else []:
        rest = {name: value for name, value in environ.items() if name not in names}
        if problem_with(rest) is None:
            say(
                f"left out, as MPI does not start with it here: {presets.shown(environ, names)} "
                f"({problem})"
            )
            for name in names:
                del environ[name]
            return None
    return problem
