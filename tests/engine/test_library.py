"""``train()`` in somebody's program, on some of its processes, again and again."""

from pathlib import Path

import pytest

from tests.pool import on_ranks
from tests.ranks import Launcher, run_ranks

CHECK = Path(__file__).with_name("check_library.py")


@pytest.mark.parametrize(
    ("launcher", "np", "case"),
    [("mpirun", 3, "part"), pytest.param("gloo", 2, "all", marks=pytest.mark.tail)],
)
def test_members_end_together_and_can_train_again(
    launcher: Launcher, np: int, case: str, tmp_path: Path
) -> None:
    check = "tests.engine.check_library:members"
    on_ranks(check, np, tmp_path, case, launcher=launcher, timeout_s=300)


def test_a_stopped_member_ends_the_program(tmp_path: Path) -> None:
    done = run_ranks(CHECK, 3, tmp_path, "stop", launcher="mpirun", timeout_s=150)
    assert done.returncode != 0, done.stdout
    assert done.stdout.count("error: the job hangs and is ended by its watchdog") == 1
    assert "rank 1 (" in done.stdout and "no sign of life for" in done.stdout
