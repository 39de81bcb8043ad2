"""``python -m megdet_hvd.train``: train a detector, alone or under any launcher."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from megdet_hvd.cli import TrainArguments, parse_train_arguments
from megdet_hvd.cluster import ending
from megdet_hvd.cluster.rank_log import redirect_output
from megdet_hvd.config.load import load_config, override
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError

if TYPE_CHECKING:
    from megdet_hvd.comm.world import World


@dataclass(frozen=True)
class Plan:
    """What the command line asks for."""

    config: Config
    config_file: Path | None
    resumed: Path | None
    """Run folder to carry on; None: a new run."""
    folder: Path | None = None
    """Folder for a new run, which may hold one without any checkpoint; None: by its name."""
    words: tuple[str, ...] = ()
    """What was given of configuration and overrides, as words of a command line."""

    def carry_on(self, path: Path) -> str:
        """The command that carries on the run in ``path``, launcher aside."""
        option = "--run" if self.folder is not None else "--resume"
        # What a new run was given is in its config.yaml; what a resumed one was, is not.
        words = self.words if self.resumed is not None else ()
        return shlex.join(["python", "-m", "megdet_hvd.train", option, str(path), *words])


def main(argv: Sequence[str] | None = None, *, machine_of_rank: Sequence[int] | None = None) -> int:
    """Parse, train, and return the exit code. ``machine_of_rank``: pretended machines."""
    redirect_output()
    arguments = parse_train_arguments(argv)
    from megdet_hvd.engine.job import training_job
    from megdet_hvd.engine.program import run_program

    return run_program(
        lambda: make_plan(arguments),
        train_in_world,
        job=lambda plan: training_job(plan.config),
        machine_of_rank=machine_of_rank,
        stoppable=True,
        rank_0_configures=arguments.run is not None,
    )


def make_plan(arguments: TrainArguments) -> Plan:
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
        return Plan(config, arguments.config, None, words=words)
    from megdet_hvd.engine.run_folder import RunFolder, find_run

    if arguments.run_folder is None:
        folder = find_run(Path(load_config(arguments.config, arguments.overrides).output))
    else:
        folder = RunFolder(arguments.run_folder)
    if not folder.config.exists():
        raise UserError(f"{folder.path} holds no run to carry on (it has no config.yaml)")
    source = arguments.config or folder.config
    config = override(load_config(source), arguments.overrides)
    return Plan(config, source, folder.path, words=words)


def _start_or_carry_on(arguments: TrainArguments, path: Path, words: tuple[str, ...]) -> Plan:
    from megdet_hvd.checkpoint.naming import list_checkpoints
    from megdet_hvd.engine.run_folder import RunFolder

    if arguments.resume:
        raise UserError(
            f"--run {path} and --resume both name a run; --run alone starts it, or carries it on "
            "where it has begun"
        )
    folder = RunFolder(path)
    begun = bool(list_checkpoints(folder.checkpoints))
    source = arguments.config or (folder.config if folder.config.exists() else None)
    if begun and source is None:
        raise UserError(
            f"{path} holds checkpoints and no config.yaml; name the configuration with --config"
        )
    config = load_config(source, arguments.overrides)
    return Plan(config, source, path if begun else None, folder=path, words=words)


def train_in_world(plan: Plan, world: "World") -> int:
    """Train with all processes of the job, and print the result."""
    from megdet_hvd.comm.exchange import broadcast_object
    from megdet_hvd.engine.log import LOGGER
    from megdet_hvd.engine.prepare import announce, prepare_run
    from megdet_hvd.engine.program import STOPPED
    from megdet_hvd.engine.run import execute
    from megdet_hvd.engine.run_folder import new_run_name

    path = plan.resumed or plan.folder
    if path is None:
        name = plan.config.name
        if name == "auto":
            name = broadcast_object(new_run_name(plan.config_file), world, "name")
        path = Path(plan.config.output) / name
    resume = plan.resumed is not None
    run = prepare_run(plan.config, world, path, resume=resume, anew=plan.folder is not None)
    announce(run)
    execute(run)
    if run.stopped is None:
        ending.note(message=f"finished after iteration {run.iteration}")
        return 0
    pending = ", its evaluation still to be done" if run.evaluation_due else ""
    text = (
        f"stopped on request ({run.stopped}) after iteration {run.iteration} of "
        f"{run.derived.end_iteration}{pending}; carry on with: {plan.carry_on(path)}"
    )
    LOGGER.info(text)
    ending.note(message=text)
    return STOPPED


if __name__ == "__main__":
    sys.exit(main())
