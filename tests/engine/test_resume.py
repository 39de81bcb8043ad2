from pathlib import Path

import pytest

from tests.ranks import Launcher, run_ranks

CHECKS = Path(__file__).with_name("check_resume.py")


@pytest.mark.parametrize(
    ("launcher", "np", "machines"),
    [
        ("python", 1, "-"),
        ("gloo", 2, "0,1"),
        ("mpirun", 3, "-"),
        ("mpirun", 4, "0,0,1,1"),
    ],
)
def test_a_resumed_run_has_the_weights_of_one_that_was_not_stopped(
    launcher: Launcher, np: int, machines: str, tmp_path: Path
) -> None:
    done = run_ranks(CHECKS, np, tmp_path, machines, launcher=launcher, timeout_s=400)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("resumed bit for bit") == np, done.stdout
