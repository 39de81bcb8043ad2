from pathlib import Path

import pytest

from tests.pool import on_ranks
from tests.ranks import Launcher


@pytest.mark.parametrize(
    ("launcher", "np", "machines"),
    [
        pytest.param("python", 1, None, marks=pytest.mark.tail),
        pytest.param("gloo", 2, None, marks=pytest.mark.tail),
        pytest.param("mpirun", 3, None, marks=pytest.mark.tail),
        ("mpirun", 4, (0, 0, 1, 1)),
    ],
)
def test_recomputation_changes_no_bit_and_sends_nothing_more(
    launcher: Launcher, np: int, machines: tuple[int, ...] | None, tmp_path: Path
) -> None:
    on_ranks("tests.memory.check_ranks:same_bits", np, tmp_path, machines, launcher=launcher)
