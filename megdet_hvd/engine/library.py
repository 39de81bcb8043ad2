"""Training inside somebody's MPI program: all members end with a result, or all with an exception.

Nothing of the program is ended or changed for good: MPI stays as it is, and so do signal handlers,
logging and torch's settings. Only a member that hangs or has died makes the watchdog end the
program, since nobody could be told.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megdet_hvd.checkpoint.naming import no_run_words
from megdet_hvd.cluster.launch import read_launch
from megdet_hvd.config.elastic_resume import ElasticResume
from megdet_hvd.config.load import load_config, to_yaml
from megdet_hvd.config.schema import Config
from megdet_hvd.engine.device import borrowed_torch
from megdet_hvd.engine.needs import training_needs
from megdet_hvd.engine.own_code import NOTHING_GIVEN, GivenCode
from megdet_hvd.engine.prepare import announce, prepare_run
from megdet_hvd.engine.result import TrainResult, result_of
from megdet_hvd.engine.resumption import Resumption, resumption_of
from megdet_hvd.engine.run import execute
from megdet_hvd.engine.run_folder.folder import RunFolder, find_run, new_run_name
from megdet_hvd.engine.run_folder.lock import holding
from megdet_hvd.errors import StorageError, UserError
from megdet_hvd.job.agree import ErrorRecord, error_record, mark_agreed, raise_first
from megdet_hvd.job.horovod_settings import light_cycle, refusal
from megdet_hvd.job.life import run_member
from megdet_hvd.job.log import borrowed_log, log_elastic_resume
from megdet_hvd.job.meeting import Meeting, meeting_of
from megdet_hvd.job.needs import SessionNeeds
from megdet_hvd.job.world import Machines, World
from megdet_hvd.storage import as_storage_error, exists

_Agreed = tuple[Path, Resumption | None]
"""The run folder, and how its run is carried on."""


def train_as_member(
    config: Config,
    comm: Any,
    *,
    run_folder: Path | None,
    resume: bool,
    machine_of_rank: Sequence[int] | None,
    given: GivenCode = NOTHING_GIVEN,
) -> TrainResult:
    """See :func:`megdet_hvd.train.train`."""
    meeting = meeting_over(comm)
    problem: UserError | None = None
    try:
        config = given.noted_in(config)
    except UserError as error:
        problem = error  # told once all have met

    def configure(meeting: Meeting) -> _Agreed:
        return _agree_on_run(meeting, config, run_folder, resume, problem)

    def work(agreed: _Agreed, world: World) -> TrainResult | None:
        path, resumption = agreed
        elastic = _elastic_resume(config, resumption, world.machines)
        with holding(path, world) as lock:
            run = prepare_run(elastic.config, world, path, resume=resume, lock=lock, given=given)
            announce(run)
            log_elastic_resume(elastic, world)
            execute(run)
        return result_of(run.folder, run.iteration, run.epoch) if world.is_main else None

    result = run_member(
        meeting,
        configure,
        work,
        needs=lambda agreed: _needs(config, agreed[1]),
        communicator=comm,
        machine_of_rank=machine_of_rank,
        borrowed=(borrowed_torch(), borrowed_log(meeting.rank)),
    )
    assert result is not None, "rank 0 has one"
    return result


def meeting_over(comm: Any) -> Meeting:
    """How the members of ``comm`` meet; None: those that the launcher started.

    Raises:
        UserError: ``comm`` is no communicator of mpi4py's that this process belongs to.
    """
    launch = read_launch(os.environ)
    if comm is None and launch.controller != "mpi":
        return meeting_of(launch)
    from mpi4py import MPI

    comm = MPI.COMM_WORLD if comm is None else comm
    if not isinstance(comm, MPI.Intracomm):
        raise UserError(
            f"comm={comm!r} is a {type(comm).__name__}; give an intracommunicator of mpi4py, such "
            "as MPI.COMM_WORLD.Split(color), or None for all processes of the launcher"
        )
    if comm == MPI.COMM_NULL:
        raise UserError(
            "comm is MPI.COMM_NULL: this process is no member; only members call train()"
        )
    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise UserError(
            "Horovod's thread calls MPI beside yours, which MPI was not started for; let mpi4py "
            'start it with mpi4py.rc(thread_level="multiple") before the first `from mpi4py '
            "import MPI`"
        )
    return meeting_of(launch, comm)


def _elastic_resume(
    config: Config, resumption: Resumption | None, machines: Machines
) -> ElasticResume:
    """The same on all members, or the same error."""
    if resumption is None:
        return ElasticResume(config)
    try:
        return resumption.elastic_resume(machines)
    except UserError as error:
        raise mark_agreed(error) from None


def _needs(config: Config, resumption: Resumption | None) -> SessionNeeds:
    needs = training_needs(config, resumption)
    settings = None if needs.horovod is None else light_cycle(needs.horovod, config)
    return SessionNeeds(settings, needs.bn_groups, needs.watchdog_s, needs.environment)


def _agree_on_run(
    meeting: Meeting,
    config: Config,
    run_folder: Path | None,
    resume: bool,
    known: UserError | None = None,
) -> _Agreed:
    """The run folder, and how its run is carried on, as rank 0 sees them.

    All members call it together, before Horovod runs. ``known``: why this one can't take part.

    Raises:
        UserError, StorageError: on all members alike.
    """
    problem: ErrorRecord | None = None
    path: Path | None = None
    resumption: Resumption | None = None
    try:
        if known is not None:
            raise known
        if (reason := _not_ready()) is not None:
            raise UserError(reason)
        if meeting.rank == 0:
            path = _run_folder(config, run_folder, resume)
            resumption = _resumption(path, config) if resume else None
    except (UserError, StorageError, OSError) as error:
        found_error = as_storage_error(error)
        if not isinstance(found_error, UserError | StorageError):
            raise
        problem = error_record(found_error)
    digest = hashlib.sha256(to_yaml(config).encode()).hexdigest()
    found = meeting.gather((problem, digest, resume, (path, resumption)), "run")
    raise_first([one[0] for one in found])
    others = [rank for rank, one in enumerate(found) if one[1:3] != found[0][1:3]]
    if others:
        raise mark_agreed(
            UserError(
                f"ranks {others} call train() with another config or resume than rank 0; all "
                "members must give the same: broadcast the config from one of them"
            )
        )
    agreed: _Agreed = found[0][3]
    return agreed


def _resumption(path: Path, config: Config) -> Resumption:
    """Raises UserError: there is no run in ``path``."""
    folder = RunFolder(path)
    if not exists(folder.config):
        raise UserError(no_run_words(path))
    return resumption_of(path, config, load_config(folder.config), ())


def _not_ready() -> str | None:
    import horovod.torch as hvd

    if hvd.is_initialized():
        return (
            "Horovod runs in this process already, and train() starts its own session; call "
            "hvd.shutdown() on all of its processes first"
        )
    return refusal()


def _run_folder(config: Config, run_folder: Path | None, resume: bool) -> Path:
    if run_folder is not None:
        return Path(run_folder)
    if resume:
        return find_run(Path(config.output)).path
    name = new_run_name(None) if config.name == "auto" else config.name
    return Path(config.output) / name
