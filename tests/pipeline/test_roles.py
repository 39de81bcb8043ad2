import pytest

from megdet_hvd.errors import UserError
from megdet_hvd.pipeline.roles import Roles, share_roles


def test_trainers_come_first() -> None:
    assert share_roles(5, 2) == Roles((0, 1, 2), (3, 4))
    assert share_roles(2, 0) == Roles((0, 1), ())


@pytest.mark.parametrize(("size", "evaluators"), [(1, 1), (2, 3)])
def test_somebody_must_train(size: int, evaluators: int) -> None:
    with pytest.raises(UserError, match=f"pipeline.evaluators={evaluators} of {size} ranks"):
        share_roles(size, evaluators)
