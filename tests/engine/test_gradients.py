from pathlib import Path

import pytest

from tests.ranks import Launcher, run_ranks

CHECKS = Path(__file__).with_name("check_gradients.py")


@pytest.mark.parametrize(
    ("launcher", "np"), [("python", 1), ("gloo", 2), ("horovodrun", 3), ("mpirun", 4)]
)
def test_the_averaged_gradient_does_not_depend_on_the_split(launcher: Launcher, np: int) -> None:
    done = run_ranks(CHECKS, np, launcher=launcher)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("same gradients") == np, done.stdout
