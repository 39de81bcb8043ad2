"""Who trains and who evaluates in a pipeline. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError


@dataclass(frozen=True)
class Roles:
    """Trainers come first, so that a trainer's rank is the same among them and among all."""

    trainers: tuple[int, ...]
    evaluators: tuple[int, ...]
    """Empty: trainers evaluate in line."""

    def trainers_by_machine(self, machines: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
        """The trainers on each machine; machines of evaluators alone are left out."""
        last = len(self.trainers)
        found = [tuple(rank for rank in ranks if rank < last) for ranks in machines]
        return [ranks for ranks in found if ranks]


def evaluators_of(config: Config) -> int:
    """How many ranks of a pipeline evaluate.

    Raises:
        UserError: they would have nothing to do.
    """
    data, evaluators = config.data, config.pipeline.evaluators
    if evaluators and data.kind == "coco" and not data.val:
        raise UserError(
            f"pipeline.evaluators={evaluators}, and there is nothing to evaluate on: give "
            "data.val, or set pipeline.evaluators=0"
        )
    return evaluators


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


def describe_roles(roles: Roles) -> str:
    """One line for the log."""
    trainers, evaluators = len(roles.trainers), len(roles.evaluators)
    if not evaluators:
        return f"{trainers} ranks train and evaluate in line (pipeline.evaluators=0)"
    return (
        f"{_ranks(roles.trainers, 'train')}, {_ranks(roles.evaluators, 'evaluate')} concurrently "
        f"(pipeline.evaluators={evaluators})"
    )


def _ranks(ranks: Sequence[int], does: str) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]} {does}s"
    return f"ranks {ranks[0]}-{ranks[-1]} {does}"
