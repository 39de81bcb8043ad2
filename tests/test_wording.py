import pytest

from megdet_hvd.grouping import grouped, keys_by_value
from megdet_hvd.wording import (
    counted,
    duration,
    first_of,
    hours_minutes_seconds,
    number_ranges,
    ranks_in_words,
)


def test_counts() -> None:
    words = [counted(n, noun) for noun in ("image", "pass", "box", "GPU") for n in (0, 1, 2)]
    assert words == [
        *("0 images", "1 image", "2 images"),
        *("0 passes", "1 pass", "2 passes"),
        *("0 boxes", "1 box", "2 boxes"),
        *("0 GPUs", "1 GPU", "2 GPUs"),
    ]


@pytest.mark.parametrize(
    ("numbers", "text"), [((0,), "0"), ((0, 1, 2, 5), "0-2, 5"), ((7, 3, 4), "3-4, 7"), ((), "")]
)
def test_ranges(numbers: tuple[int, ...], text: str) -> None:
    assert number_ranges(numbers) == text
    assert number_ranges(numbers, ",") == text.replace(" ", "")


def test_ranks() -> None:
    assert (ranks_in_words([3]), ranks_in_words([16, 1, 0])) == ("rank 3", "ranks 0-1, 16")


def test_the_first_of_many() -> None:
    assert first_of(["a", "b"], 2) == "a, b" and first_of([], 2) == ""
    assert first_of(["a", "b", "c"], 2, " hosts") == "a, b and 1 more hosts"


def test_durations() -> None:
    assert [duration(s) for s in (40, 99, 120, 3600, 200000)] == [
        *("40 s", "99 s", "2 min", "1 h 0 min", "2 d 7 h"),
    ]
    assert [hours_minutes_seconds(s) for s in (0, 59.6, 3725.4)] == [
        *("0:00:00", "0:01:00", "1:02:05"),
    ]


def test_grouping_keeps_the_order() -> None:
    groups = grouped([3, 1, 4, 1, 5], lambda n: n % 2)
    assert list(groups.items()) == [(1, [3, 1, 1, 5]), (0, [4])]
    assert keys_by_value({2: "b", 0: "a", 1: "b"}) == {"a": [0], "b": [1, 2]}
