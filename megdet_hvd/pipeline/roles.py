"""Who trains and who evaluates. Pure."""

from dataclasses import dataclass

from megdet_hvd.errors import UserError
from megdet_hvd.job.world import World


@dataclass(frozen=True)
class Roles:
    """Trainers come first, so that a trainer's rank is the same among them and among all."""

    trainers: tuple[int, ...]
    evaluators: tuple[int, ...]
    """Empty: trainers evaluate in line."""


def share_roles(size: int, evaluators: int) -> Roles:
    """The roles of ``size`` ranks.

    Raises:
        UserError: nobody would be left to train.
    """
    if size <= evaluators:
        raise UserError(
            f"pipeline.evaluators={evaluators} of {size} ranks leave none to train: start more "
            f"than {evaluators} (mpirun -np {evaluators + 1} … or more), or set "
            "pipeline.evaluators=0 to evaluate in line"
        )
    ranks = tuple(range(size))
    return Roles(ranks[: size - evaluators], ranks[size - evaluators :])


def describe_roles(roles: Roles, world: World) -> str:
    """One line for the log."""
    if not roles.evaluators:
        return f"{world.size} ranks train and evaluate in line (pipeline.evaluators=0)"
    return (
        f"ranks 0-{len(roles.trainers) - 1} train, "
        f"{', '.join(map(str, roles.evaluators))} evaluate alongside "
        f"(pipeline.evaluators={len(roles.evaluators)})"
    )
