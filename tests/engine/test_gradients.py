import pytest

from tests.pool import on_ranks
from tests.ranks import Launcher


@pytest.mark.parametrize(
    ("launcher", "np"),
    [
        pytest.param("python", 1, marks=pytest.mark.tail),
        ("gloo", 2),
        ("mpirun", 3),
        pytest.param("mpirun", 4, marks=pytest.mark.tail),
    ],
)
def test_the_averaged_gradient_does_not_depend_on_the_split(launcher: Launcher, np: int) -> None:
    on_ranks("tests.engine.check_gradients:same_gradients", np, launcher=launcher)
