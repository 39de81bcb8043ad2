from collections.abc import Sequence

import pytest

from megdet_hvd.lab.divergence import find_divergence

PEAK = 0.08


def judged(losses: Sequence[float | None], warm: int = 2) -> tuple[int, str] | None:
    """What is found in losses of updates 1, 2, …, the peak rate being reached at ``warm``."""
    count = len(losses)
    rates = [PEAK if i >= warm else PEAK / 4 for i in range(count)]
    found = find_divergence(range(1, count + 1), losses, rates, PEAK)
    return None if found is None else (found.iteration, found.reason)


def test_a_falling_loss_has_not_diverged() -> None:
    assert judged([3.0 - 0.05 * i for i in range(40)]) is None


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_has_diverged_where_it_stands(bad: float | None) -> None:
    found = judged([3.0, 2.0, bad, 1.0])
    assert found is not None and found[0] == 3 and "not finite" in found[1]


def test_ten_updates_above_the_start_after_the_warm_up_are_divergence() -> None:
    # The first is 2.0, whatever follows; ten of 2.1 stand above it.
    assert judged([2.0, 9.0, 1.0, 1.0, *[2.1] * 9]) is None
    found = judged([2.0, 9.0, 1.0, 1.0, *[2.1] * 10])
    assert found is not None and found[0] == 14 and "above the initial 2" in found[1]


def test_the_first_update_counts_for_the_start_alone() -> None:
    # Without a warm-up: ten updates behind it, not it and nine.
    assert judged([2.0, *[2.1] * 9], warm=0) is None
    assert judged([2.0, *[2.1] * 10], warm=0) == (
        11,
        "the mean loss of 10 updates is above the initial 2",
    )


def test_it_is_told_where_it_began_however_late_it_is_looked_at() -> None:
    above = [2.0, 9.0, 1.0, 1.0, *[2.1] * 10]
    for later in ([], [None], [2.0, None], [0.1] * 30):
        found = judged([*above, *later])
        assert found is not None and found[0] == 14 and "above the initial" in found[1]
    assert judged([*above[:-1], None]) == (14, "the loss is not finite")


def test_level_with_the_start_is_not_above_it() -> None:
    assert judged([2.0] * 40) is None


def test_a_warm_up_that_is_never_over_leaves_only_what_is_not_finite() -> None:
    assert judged([2.0, *[9.0] * 40], warm=99) is None
    assert judged([2.0, *[9.0] * 40, None], warm=99) == (42, "the loss is not finite")


def test_one_spike_is_none() -> None:
    assert judged([2.0, 2.0, 2.0, *[1.0] * 20, 9.0, *[1.0] * 20]) is None


def test_the_warm_up_is_not_judged() -> None:
    high = [2.0, 2.0, 2.0, *[2.5] * 20]
    assert judged(high, warm=30) is None
    assert judged(high, warm=13) == (23, "the mean loss of 10 updates is above the initial 2")


def test_too_few_updates_say_nothing() -> None:
    assert judged([]) is None
    assert judged([1.0, 9.0]) is None
