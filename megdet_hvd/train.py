"""``python -m megdet_hvd.train``: train a detector, alone or under any launcher."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megdet_hvd.command import leave, need_environment, words_of

if __name__ == "__main__":
    need_environment()

from megdet_hvd.cli import TrainArguments, parse_train_arguments
from megdet_hvd.cluster.rank_log import redirect_output
from megdet_hvd.collector import collector_at_rest
from megdet_hvd.config.load import load_config, override
from megdet_hvd.config.schema import Config, DataConfig
from megdet_hvd.errors import STOPPED, UserError
from megdet_hvd.job import outcome_notes
from megdet_hvd.serialize import serializable
from megdet_hvd.storage import exists

if TYPE_CHECKING:
    from megdet_hvd.data.own import DataSetFactory
    from megdet_hvd.engine.result import TrainResult
    from megdet_hvd.engine.resumption import Resumption
    from megdet_hvd.engine.run import Measure
    from megdet_hvd.engine.run_folder.loggers import LoggerFactory
    from megdet_hvd.engine.step.optimizer import OptimizerFactory
    from megdet_hvd.evaluation.measures import OwnMeasure
    from megdet_hvd.job.world import World
    from megdet_hvd.model.own import DetectorFactory


@serializable
@dataclass(frozen=True)
class TrainingPlan:
    """What the command line asks for."""

    config: Config
    config_file: Path | None
    resumed: Path | None
    """Run folder to carry on; None: a new run."""
    resumption: "Resumption | None" = None
    """How it is carried on."""
    folder: Path | None = None
    """Folder for a new run, which may hold one without any checkpoint; None: by its name."""
    words: tuple[str, ...] = ()
    """What was given of configuration and overrides, as words of a command line."""
    program: str = "megdet_hvd.train"
    """The module that was started."""
    prepared: DataConfig | None = None
    """Files to read instead of those of ``config``, which the run keeps: prepared from them."""

    def carry_on(self, path: Path) -> str:
        """The command that carries on the run in ``path``, launcher aside."""
        option = "--run" if self.folder is not None else "--resume"
        # What a new run was given is in its config.yaml; what a resumed one was, is not.
        words = self.words if self.resumed is not None else ()
        return shlex.join([*words_of(self.program), option, str(path), *words])


def main(argv: Sequence[str] | None = None, *, machine_of_rank: Sequence[int] | None = None) -> int:
    """Parse, train, and return the exit code. ``machine_of_rank``: pretended machines."""
    redirect_output()
    arguments = parse_train_arguments(argv)
    from megdet_hvd.engine.early import start_early
    from megdet_hvd.engine.needs import training_needs
    from megdet_hvd.job.life import Program, run_program

    return run_program(
        Program(
            lambda: make_training_plan(arguments),
            lambda plan, life: train_in_world(plan, life.world),
            early=lambda plan: start_early(plan.config),
            needs=lambda plan: training_needs(plan.config, plan.resumption),
            machine_of_rank=machine_of_rank,
            stoppable=True,
            rank_0_configures=arguments.resume or arguments.run is not None,
        )
    )


def train(
    config: Config,
    comm: Any = None,
    *,
    run_folder: Path | None = None,
    resume: bool = False,
    machine_of_rank: Sequence[int] | None = None,
    detector: "DetectorFactory | str | None" = None,
    dataset: "DataSetFactory | str | None" = None,
    optimizer: "OptimizerFactory | str | None" = None,
    loggers: "Sequence[LoggerFactory | str] | None" = None,
    measures: "Sequence[OwnMeasure | str] | None" = None,
) -> "TrainResult":
    """Train inside a program of yours. All members call it together; any number of times.

    On GPUs, Horovod's sums keep the default stream waiting, not the host, and Horovod keeps to that
    as long as the process lives: later sessions of your own must use their sums on that stream.
    With ``HOROVOD_ENABLE_ASYNC_COMPLETION=0`` in the environment, the host waits.

    Args:
        config: as :func:`megdet_hvd.config.load.load_config` reads it; the same on all members.
        comm: an intracommunicator of mpi4py: its processes train, others may do as they like. It
            is duplicated, and neither changed nor freed. None: whatever launched this process:
            all processes of ``mpirun`` or ``horovodrun``, or this one alone.
        run_folder: where the run goes; None: a new folder below ``config.output``, as the command
            makes it. Rank 0's counts.
        resume: carry on the run in that folder; None: the newest one below ``config.output``.
        machine_of_rank: pretended machines, see :func:`megdet_hvd.job.session.start`.
        detector: one of your own, as ``model.detector`` names it (docs/extending.md). Here and
            below: a function or class, or its name; the same on all members. It wins over the
            setting, and ``config.yaml`` of the run has its name.
        dataset: of your own, as ``data.dataset`` names it; ``data.kind`` is ``own`` then.
        optimizer: of your own, as ``learning.optimizer`` names it.
        loggers: of your own, as ``log.loggers`` names them.
        measures: of your own, as ``evaluation.measures`` names them.

    Returns:
        The result, on all members.

    Raises:
        Exception: on all members. Whoever failed raises its own error, the others
            :class:`megdet_hvd.errors.MemberError`, which names the rank and carries the text; all
            raise the same UserError, RunError or StorageError where all agree on it. MPI, and the
            next call, work as before. A member that hangs or has died can't be told, nor tell:
            then the watchdog ends the whole program (``config.watchdog.seconds=0``: never).
    """
    from megdet_hvd.engine.library import train_as_member
    from megdet_hvd.engine.own_code import GivenCode

    return train_as_member(
        config,
        comm,
        run_folder=run_folder,
        resume=resume,
        machine_of_rank=machine_of_rank,
        given=GivenCode(
            detector=detector,
            dataset=dataset,
            optimizer=optimizer,
            loggers=loggers,
            measures=measures,
        ),
    )


def make_training_plan(arguments: TrainArguments) -> TrainingPlan:
    """Read the configuration, that of the run folder where one is carried on.

    Raises:
        UserError: a bad setting, or no run to carry on.
    """
    words = arguments.overrides
    if arguments.config is not None:
        words = ("--config", str(arguments.config), *words)
    if arguments.run is not None:
        return _start_or_carry_on(arguments, arguments.run, words)
    if not arguments.resume:
        config = load_config(arguments.config, arguments.overrides)
        return TrainingPlan(config, arguments.config, None, words=words)
    from megdet_hvd.checkpoint.naming import no_run_words
    from megdet_hvd.engine.resumption import resumption_of
    from megdet_hvd.engine.run_folder.folder import RunFolder, find_run

    if arguments.run_folder is None:
        folder = find_run(Path(load_config(arguments.config, arguments.overrides).output))
    else:
        folder = RunFolder(arguments.run_folder)
    if not exists(folder.config):
        raise UserError(no_run_words(folder.path))
    source = arguments.config or folder.config
    config = override(load_config(source), arguments.overrides)
    own = load_config(folder.config)
    resumption = resumption_of(folder.path, config, own, arguments.overrides)
    return TrainingPlan(resumption.config, source, folder.path, resumption, words=words)


def _start_or_carry_on(
    arguments: TrainArguments, path: Path, words: tuple[str, ...]
) -> TrainingPlan:
    from megdet_hvd.checkpoint.naming import list_checkpoints
    from megdet_hvd.engine.resumption import resumption_of
    from megdet_hvd.engine.run_folder.folder import RunFolder

    if arguments.resume:
        raise UserError(
            f"--run {path} and --resume both name a run; --run alone starts it, or carries it on "
            "where it has begun"
        )
    folder = RunFolder(path)
    begun = bool(list_checkpoints(folder.checkpoints))
    source = arguments.config or (folder.config if exists(folder.config) else None)
    if begun and source is None:
        raise UserError(
            f"{path} holds checkpoints and no config.yaml; name the configuration with --config"
        )
    config = load_config(source, arguments.overrides)
    if not begun:
        return TrainingPlan(config, source, None, folder=path, words=words)
    own = load_config(folder.config) if exists(folder.config) else config
    # The words of a job that is requeued ask for no other layout.
    resumption = resumption_of(path, config, own, ())
    return TrainingPlan(resumption.config, source, path, resumption, folder=path, words=words)


def train_in_world(plan: TrainingPlan, world: "World", measure: "Measure | None" = None) -> int:
    """Train with all processes of the job, and print the result.

    ``measure`` says who evaluates; None: all processes, in line.
    """
    with collector_at_rest():
        from megdet_hvd.config.elastic_resume import ElasticResume
        from megdet_hvd.engine.evaluate_in_line import InLine
        from megdet_hvd.engine.preflight import before_training
        from megdet_hvd.engine.prepare import announce, prepare_run
        from megdet_hvd.engine.run import execute
        from megdet_hvd.engine.run_folder.folder import new_run_name
        from megdet_hvd.engine.run_folder.lock import holding
        from megdet_hvd.job.agree import together
        from megdet_hvd.job.exchange import broadcast_object
        from megdet_hvd.job.log import LOGGER, log_elastic_resume

    before_training(plan.config, world)
    with together(world, "elastic resume"):
        resumption = plan.resumption
        resumed = (
            ElasticResume(plan.config)
            if resumption is None
            else resumption.elastic_resume(world.machines)
        )
    path = plan.resumed or plan.folder
    if path is None:
        name = plan.config.name
        if name == "auto":
            name = broadcast_object(new_run_name(plan.config_file), world, "name")
        path = Path(plan.config.output) / name
    resume, anew = plan.resumed is not None, plan.folder is not None
    with holding(path, world) as lock:
        run = prepare_run(
            resumed.config,
            world,
            path,
            resume=resume,
            anew=anew,
            prepared=plan.prepared,
            lock=lock,
        )
        announce(run)
        log_elastic_resume(resumed, world)
        execute(run, measure or InLine)
    if run.stopped is None:
        outcome_notes.note(message=f"finished after iteration {run.iteration}")
        return 0
    pending = ", its evaluation still to be done" if run.evaluation_due else ""
    text = (
        f"stopped on request ({run.stopped}) after iteration {run.iteration} of "
        f"{run.derived.end_iteration}{pending}; carry on with: {plan.carry_on(path)}"
    )
    LOGGER.info(text)
    outcome_notes.note(message=text)
    return STOPPED


if __name__ == "__main__":
    leave(main)
