"""``mpirun -np N python -m megdet_hvd.pipeline``: prepare data, train, evaluate concurrently."""

from collections.abc import Sequence
from dataclasses import replace

from megdet_hvd.command import leave, need_environment

if __name__ == "__main__":
    need_environment()

from megdet_hvd.cli import parse_train_arguments
from megdet_hvd.cluster.rank_log import redirect_output


def main(argv: Sequence[str] | None = None, *, machine_of_rank: Sequence[int] | None = None) -> int:
    """Parse, run, and return the exit code. ``machine_of_rank``: pretended machines."""
    redirect_output()
    arguments = parse_train_arguments(
        argv,
        "megdet_hvd.pipeline",
        "Prepare data, train, and evaluate each epoch's checkpoint meanwhile, in one MPI program: "
        "`mpirun -np 9 python -m megdet_hvd.pipeline pipeline.evaluators=1` trains on 8 ranks "
        "while the ninth evaluates.",
    )
    from megdet_hvd.pipeline.program import run_pipeline
    from megdet_hvd.train import make_training_plan

    return run_pipeline(
        lambda: replace(make_training_plan(arguments), program="megdet_hvd.pipeline"),
        machine_of_rank,
    )


if __name__ == "__main__":
    leave(main)
