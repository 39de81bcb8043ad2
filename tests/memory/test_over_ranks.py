from pathlib import Path

import pytest

from tests.ranks import Launcher, run_ranks

CHECKS = Path(__file__).with_name("check_ranks.py")


@pytest.mark.parametrize(
    ("launcher", "np", "machines"),
    [
        ("python", 1, "-"),
        ("gloo", 2, "-"),
        ("horovodrun", 3, "-"),
        ("mpirun", 4, "0,0,1,1"),
    ],
)
def test_recomputation_changes_no_bit_and_sends_nothing_more(
    launcher: Launcher, np: int, machines: str, tmp_path: Path
) -> None:
    done = run_ranks(CHECKS, np, tmp_path, machines, launcher=launcher)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("same bits") == np, done.stdout
