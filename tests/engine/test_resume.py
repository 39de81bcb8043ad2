from pathlib import Path

import pytest

from tests.pool import on_ranks
from tests.ranks import Launcher


@pytest.mark.parametrize(
    ("launcher", "np", "machines"),
    [
        pytest.param("python", 1, None, marks=pytest.mark.tail),
        pytest.param("gloo", 2, (0, 1), marks=pytest.mark.tail),
        pytest.param("mpirun", 3, None, marks=pytest.mark.tail),
        ("mpirun", 4, (0, 0, 1, 1)),
    ],
)
def test_a_resumed_run_has_the_weights_of_one_that_was_not_stopped(
    launcher: Launcher, np: int, machines: tuple[int, ...] | None, tmp_path: Path
) -> None:
    check = "tests.engine.check_resume:resumed_bit_for_bit"
    on_ranks(check, np, tmp_path, machines, launcher=launcher, timeout_s=400)
