import pytest

from megdet_hvd.config.pipeline_roles import Roles, describe_roles, share_roles
from megdet_hvd.errors import UserError


def test_trainers_come_first() -> None:
    assert share_roles(5, 2) == Roles((0, 1, 2), (3, 4))
    assert share_roles(2, 0) == Roles((0, 1), ())


@pytest.mark.parametrize(("size", "evaluators"), [(1, 1), (2, 3)])
def test_somebody_must_train(size: int, evaluators: int) -> None:
    with pytest.raises(UserError, match=f"pipeline.evaluators={evaluators} of {size} ranks"):
        share_roles(size, evaluators)


def test_evaluators_have_the_last_machines_to_themselves_where_they_fill_them() -> None:
    machines = [(0, 1), (2, 3), (4, 5)]
    assert share_roles(6, 2).trainers_by_machine(machines) == [(0, 1), (2, 3)]
    assert share_roles(6, 3).trainers_by_machine(machines) == [(0, 1), (2,)]


def test_the_roles_in_words() -> None:
    assert describe_roles(share_roles(136, 8)) == (
        "ranks 0-127 train, ranks 128-135 evaluate concurrently (pipeline.evaluators=8)"
    )
    assert describe_roles(share_roles(2, 1)).startswith(
        "rank 0 trains, rank 1 evaluates concurrently"
    )
