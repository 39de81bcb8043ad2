"""The ranks that other tests lean on: nothing passes from one check to the next."""

import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.pool import CheckFailed, Done, on_ranks
from tests.ranks import ROOT, Launcher, RanksHung

SAMPLES = "tests.pool_samples"
WORKER = os.environ.get("PYTEST_XDIST_WORKER")


def on_two(name: str, *arguments: Any, **words: Any) -> Done:
    return on_ranks(f"{SAMPLES}:{name}", 2, *arguments, **words)


def pids() -> list[int]:
    return [value[-1] for value in on_two("state").values]


@pytest.mark.skipif(WORKER is None, reason="without pytest-xdist there are no groups")
def test_what_is_checked_on_ranks_stays_in_one_worker(request: pytest.FixtureRequest) -> None:
    """Else each worker has pools of its own, and they fill the memory."""
    assert on_two("state").values
    assert request.node.nodeid.endswith("@pools")


@pytest.mark.parametrize("launcher", ["mpirun", "gloo"])
def test_ranks_answer_and_speak_and_stay_up(launcher: Launcher) -> None:
    first = on_two("state", launcher=launcher)
    done = on_two("add", None, {}, launcher=launcher, env={"MEGDET_SAMPLE": "here"})
    assert done.values == [[1, 0, "here"]] * 2
    assert done.outputs == [f"said by {rank}\nand by a child\n" for rank in range(2)]
    done = on_two("add", [0, 1], {"MEGDET_SAMPLE": "own"}, launcher=launcher)
    assert done.values == [[1, 0, "own"], [1, 1, "own"]]
    assert on_two("state", launcher=launcher) == first, "the same processes, as they were"
    assert first.values[0][1] is None and first.values[0][0] == str(ROOT)


def test_what_a_check_changes_is_put_back(tmp_path: Path) -> None:
    before = on_two("state").values
    drawn = on_two("untidy", cwd=tmp_path).values
    assert on_two("state").values == before
    assert on_two("untidy").values == drawn and drawn[0] == drawn[1]


def test_what_cannot_be_put_back_fails_the_check_and_ends_the_ranks() -> None:
    with pytest.raises(CheckFailed, match="rank 0 left behind: ") as told:
        on_ranks(f"{SAMPLES}:leave_everything", 1, launcher="python")
    for what in (
        "Horovod runs",
        "thread lasting runs",
        "runs: sleep 60",
        "megdet_hvd.job.exchange.barrier is replaced",
    ):
        assert str(told.value).count(what) == 1, told.value


def test_one_rank_that_raises_or_ends_fails_the_check_soon() -> None:
    before, began = pids(), time.monotonic()
    with pytest.raises(CheckFailed, match=r"(?s)rank 0 .*rank 1 raised.*ZeroDivisionError: on one"):
        on_two("one_raises")
    assert not set(before) & set(pids())
    with pytest.raises(CheckFailed, match=r"(?s)rank [01] has ended"):
        on_two("one_is_killed")
    assert time.monotonic() - began < 60
    assert not any(map(psutil.pid_exists, before))


def test_a_hang_is_told_with_all_stacks() -> None:
    before = pids()
    with pytest.raises(RanksHung, match=r"one_hangs did not end in [0-9.]+ s on the pool") as told:
        on_two("one_hangs", timeout_s=3)
    assert str(told.value).count("one_hangs (tests/pool_samples.py:") == 2, told.value
    assert not any(map(psutil.pid_exists, before))


def test_what_is_returned_is_plain() -> None:
    with pytest.raises(CheckFailed, match="not JSON serializable"):
        on_ranks("os:getcwdb", 1, launcher="python")
