"""Where a step's time goes: by hand, and between processes of which one is late."""

import statistics
from typing import Any

import pytest

from megdet_hvd.comm.position import note_waits, noted_waits, waiting
from megdet_hvd.engine.step.status import DEVICE
from megdet_hvd.engine.step.time_split import split_of
from megdet_hvd.job.world import World
from tests.pool import on_ranks

LATE_S = 0.05
PARTS = ("compute_s", "bn_s", "gradients_s", "waiting_s", "data_s")


def test_the_last_rank_spends_the_message_and_the_others_wait_for_it() -> None:
    """Two machines of two; in the second, rank 3 is late, and for the gradients rank 0."""
    bn, gradients = "cgbn.layer.0", "gradients"
    split = split_of(
        [
            (10.0, 1.0, [(bn, 0, 0.2), (bn, 0, 0.3), (gradients, 0, 0.5)]),
            (10.0, 1.0, [(bn, 0, 0.2), (bn, 0, 0.1), (gradients, 0, 0.6)]),
            (10.0, 1.0, [(bn, 2, 2.1), (bn, 2, 0.2), (gradients, 0, 0.7)]),
            (10.0, 3.0, [(bn, 2, 0.1), (bn, 2, 0.2), (gradients, 0, 0.9)]),
        ]
    )
    # Messages: 0.2 + 0.1 on the first machine, 0.1 + 0.2 on the second; gradients 0.5.
    assert split.bn_s == pytest.approx(0.3) and split.gradients_s == pytest.approx(0.5)
    # Beyond them: 0.2 for rank 1, 2.0 for rank 3, 0.1 + 0.2 + 0.4 for rank 0.
    assert split.waiting_s == pytest.approx((0.2 + 2.0 + 0.7) / 4)
    assert split.data_s == pytest.approx(1.5) and split.step_s == 10
    assert sum(getattr(split, part) for part in PARTS) == pytest.approx(10)
    assert split.slowest == 3 and split.slowest_s == pytest.approx(2.0 / 3)
    assert split.slowest_data_s == pytest.approx(2.0)
    world = World(0, 4, ((0, 1), (2, 3)), 1, "mpirun", hosts=("n1", "n2"))
    assert split.line(world) == (
        "the last step, 10.000 s: compute 6.975, BN messages 0.300, gradients 0.500, pictures "
        "1.500, waiting for others 0.725, most for rank 3 on n2: 0.667 s, whose pictures came "
        "2.000 s later"
    )
    assert split.as_metrics()["slowest_rank"] == 3 and len(split.as_metrics()) == 8


def test_one_process_waits_for_nobody() -> None:
    split = split_of([(2.0, 0.5, [("gradients", 0, 0.25)])])
    assert (split.compute_s, split.gradients_s, split.waiting_s) == (1.25, 0.25, 0.0)
    assert split.slowest is None and "slowest_rank" not in split.as_metrics()


def test_the_wait_for_the_own_gpu_is_computing() -> None:
    waits = [("gradients", 0, 0.25), (DEVICE, 0, 0.5)]
    split = split_of([(2.0, 0.25, waits), (2.0, 0.25, [("gradients", 0, 0.5), (DEVICE, 0, 0.25)])])
    assert (split.gradients_s, split.waiting_s) == (0.25, 0.125)
    assert split.compute_s == 2.0 - 0.25 - 0.25 - 0.125


def test_collectives_are_noted_between_asking_for_it_and_taking_them() -> None:
    for _ in range(2):
        note_waits()
        with waiting("gradients", (0, 1)):
            pass
        (wait,) = noted_waits()
        assert (wait.name, wait.ranks) == ("gradients", (0, 1)) and 0 <= wait.seconds < 5
        with waiting("evaluation", (0, 1)):
            pass
        assert noted_waits() == []


def median(found: list[dict[str, Any]], name: str) -> float:
    return float(statistics.median(one[name] for one in found[2:]))


@pytest.mark.alone
def test_a_late_rank_is_named_with_what_it_costs_the_others() -> None:
    for computing_s, pictures_s in ((LATE_S, 0.0), (0.0, LATE_S)):
        for tries_left in (2, 1, 0):  # other work on the machine makes ranks late, too
            done = on_ranks("tests.engine.check_time_split:splits", 2, computing_s, pictures_s)
            assert done.values[1] == [], "rank 0 alone works it out"
            found = done.values[0]
            for one in found:
                assert abs(sum(one[part] for part in PARTS) - one["step_s"]) <= 0.02 * one["step_s"]
                assert min(one[part] for part in PARTS) >= 0, one
            off = abs(median(found, "slowest_s") - LATE_S)
            if off < 0.01 or not tries_left:
                break
        assert off < 0.01
        assert statistics.mode(one["slowest"] for one in found[2:]) == 1
        assert abs(2 * median(found, "waiting_s") - LATE_S) < 0.02, "rank 0 waits, rank 1 does not"
        assert abs(median(found, "slowest_data_s") - pictures_s) < 0.02
        assert median(found, "bn_s") < 0.03 and median(found, "gradients_s") < 0.03
        named = [one["line"] for one in found if "most for rank 1" in one["line"]]
        late = sum("whose pictures came" in line for line in named)
        assert 2 * late > len(named) if pictures_s else 2 * late < len(named)
