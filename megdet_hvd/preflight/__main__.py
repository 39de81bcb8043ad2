"""``python -m megdet_hvd.preflight``: only the checks before training, under any launcher.

It takes the words of ``python -m megdet_hvd.train``, so that a job can be tried out by changing
one word: ``srun --mpi=pmix python -m megdet_hvd.preflight --config configs/coco_256.yaml``.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from megdet_hvd.command import leave, need_environment

if __name__ == "__main__":
    need_environment()

from megdet_hvd.cli import parse_train_arguments

if TYPE_CHECKING:
    from megdet_hvd.config.bn_groups import RanksByMachine
    from megdet_hvd.job.world import World
    from megdet_hvd.train import TrainingPlan


def main(argv: Sequence[str] | None = None, *, machine_of_rank: Sequence[int] | None = None) -> int:
    """Parse, check, and return the exit code. ``machine_of_rank``: pretended machines."""
    arguments = parse_train_arguments(
        argv,
        "megdet_hvd.preflight",
        "Check, under the launcher that training will be started by, that all ranks fit together, "
        "read the data, and are linked well; then end.",
    )
    from megdet_hvd.engine.needs import training_needs
    from megdet_hvd.job.life import Program, run_program
    from megdet_hvd.train import make_training_plan

    def configure() -> "TrainingPlan":
        plan = make_training_plan(arguments)
        config = plan.config.model_copy(update={"preflight": "always"})
        return dataclasses.replace(plan, config=config)

    return run_program(
        Program(
            configure,
            lambda plan, life: preflight_in_world(plan, life.world),
            needs=lambda plan: training_needs(plan.config, plan.resumption),
            machine_of_rank=machine_of_rank,
            rank_0_configures=arguments.resume or arguments.run is not None,
        )
    )


def preflight_in_world(plan: "TrainingPlan", world: "World") -> int:
    """Check with all processes of the job, and print what was found."""
    from megdet_hvd.engine.preflight import log_report
    from megdet_hvd.job.agree import together
    from megdet_hvd.preflight.annotations import read_annotations
    from megdet_hvd.preflight.run import machine_lines, run_preflight

    log_report(machine_lines(world), ())
    if plan.resumption is not None:
        with together(world, "elastic resume"):
            resumed = plan.resumption.elastic_resume(_trainers(plan, world))
        if world.is_main:
            log_report(resumed.lines, () if resumed.warning is None else (resumed.warning,))
    report = run_preflight(plan.config, world)
    if world.is_main:
        log_report(report.lines, report.warnings)
    with together(world, "preflight.annotations"):
        if world.is_main:
            log_report(*read_annotations(plan.config))
    return 0


def _trainers(plan: "TrainingPlan", world: "World") -> "RanksByMachine":
    """The ranks of each machine that will train: all, unless the words name evaluators."""
    from megdet_hvd.config.load import sets
    from megdet_hvd.config.pipeline_roles import evaluators_of, share_roles

    given = plan.words[2:] if plan.words[:1] == ("--config",) else plan.words
    if not sets(given, "pipeline.evaluators", plan.config):
        return world.machines
    roles = share_roles(world.size, evaluators_of(plan.config))
    return tuple(roles.trainers_by_machine(world.machines))


if __name__ == "__main__":
    leave(main)
