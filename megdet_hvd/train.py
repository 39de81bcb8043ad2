"""``python -m megdet_hvd.train``: train a detector, alone or under any launcher."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megdet_hvd.cli import TrainArguments, parse_train_arguments
from megdet_hvd.config.load import load_config, override
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError

if TYPE_CHECKING:
    from megdet_hvd.comm.world import World
    from megdet_hvd.engine.result import TrainResult
    from megdet_hvd.engine.run import Measure


@dataclass(frozen=True)
class Plan:
    """What the command line asks for."""

    config: Config
    config_file: Path | None
    resumed: Path | None
    """Run folder to carry on; None: a new run."""


def main(argv: Sequence[str] | None = None, *, machine_of_rank: Sequence[int] | None = None) -> int:
    """Parse, train, and return the exit code. ``machine_of_rank``: pretended machines."""
    arguments = parse_train_arguments(argv)
    from megdet_hvd.engine.job import training_job
    from megdet_hvd.engine.program import run_program

    return run_program(
        lambda: make_plan(arguments),
        train_in_world,
        job=lambda plan: training_job(plan.config),
        machine_of_rank=machine_of_rank,
    )


def train(
    config: Config,
    comm: Any = None,
    *,
    run_folder: Path | None = None,
    resume: bool = False,
    machine_of_rank: Sequence[int] | None = None,
) -> "TrainResult":
    """Train inside a program of yours. All members call it together; any number of times.

    Args:
        config: as :func:`megdet_hvd.config.load.load_config` reads it; the same on all members.
        comm: an intracommunicator of mpi4py: its processes train, others may do as they like. It
            is duplicated, and neither changed nor freed. None: whatever launched this process:
            all processes of ``mpirun`` or ``horovodrun``, or this one alone.
        run_folder: where the run goes; None: a new folder below ``config.output``, as the command
            makes it. Rank 0's counts.
        resume: carry on the run in that folder; None: the newest one below ``config.output``.
        machine_of_rank: pretended machines, see :func:`megdet_hvd.comm.session.start`.

    Returns:
        The result, on all members.

    Raises:
        Exception: on all members. Whoever failed raises its own error, the others
            :class:`megdet_hvd.errors.MemberError`, which names the rank and carries the text; all
            raise the same UserError or RunError where all agree on it. MPI, and the next call,
            work as before. A member that hangs or has died can't be told, nor tell: then the
            watchdog ends the whole program (``config.watchdog.seconds=0``: never).
    """
    from megdet_hvd.engine.library import train_as_member

    return train_as_member(
        config, comm, run_folder=run_folder, resume=resume, machine_of_rank=machine_of_rank
    )


def make_plan(arguments: TrainArguments) -> Plan:
    """Read the configuration, that of the run folder where one is carried on.

    Raises:
        UserError: a bad setting, or no run to carry on.
    """
    if not arguments.resume:
        return Plan(load_config(arguments.config, arguments.overrides), arguments.config, None)
    from megdet_hvd.engine.run_folder import RunFolder, find_run

    if arguments.run_folder is None:
        folder = find_run(Path(load_config(arguments.config, arguments.overrides).output))
    else:
        folder = RunFolder(arguments.run_folder)
    if not folder.config.exists():
        raise UserError(f"{folder.path} holds no run to carry on (it has no config.yaml)")
    source = arguments.config or folder.config
    config = override(load_config(source), arguments.overrides)
    return Plan(config, source, folder.path)


def train_in_world(plan: Plan, world: "World", measure: "Measure | None" = None) -> int:
    """Train with all processes of the job, and print the result.

    ``measure`` says who evaluates; None: all processes, in line.
    """
    from megdet_hvd.comm.exchange import broadcast_object
    from megdet_hvd.engine.evaluations import InLine
    from megdet_hvd.engine.prepare import announce, prepare_run
    from megdet_hvd.engine.run import execute
    from megdet_hvd.engine.run_folder import new_run_name

    path = plan.resumed
    if path is None:
        name = plan.config.name
        if name == "auto":
            name = broadcast_object(new_run_name(plan.config_file), world, "name")
        path = Path(plan.config.output) / name
    run = prepare_run(plan.config, world, path, resume=plan.resumed is not None)
    announce(run)
    execute(run, measure or InLine)
    return 0


if __name__ == "__main__":
    sys.exit(main())
