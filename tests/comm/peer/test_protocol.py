"""The protocol is right in every interleaving, and the explorer finds what would be wrong."""

import pytest

from megdet_hvd.comm.peer.layout import FIRST_NUMBER, LAST_NUMBER, half_of, next_number
from tests.comm.peer.explorer import Protocol, explore


@pytest.mark.parametrize("first", [FIRST_NUMBER, LAST_NUMBER - 1])
def test_every_interleaving_of_two_ranks_two_elements_four_sums(first: int) -> None:
    found = explore(Protocol(first=first))
    assert found.fault is None
    assert found.states == 46_116, "all there are: fewer would be a gap in the exploration"


def test_three_halves_are_no_better() -> None:
    assert explore(Protocol(halves=3, elements=1)).fault is None


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (Protocol(halves=1), "nobody can go on"),
        (Protocol(flag_in_data=False, in_order=True), r"takes data of sum \(-1,\) for that of"),
        (Protocol(flag_in_data=False, flag_first=False), r"takes data of sum \(-1,\) for that of"),
        (Protocol(first=0), "takes data of sum"),  # an empty slot says 0
        (
            Protocol(first=LAST_NUMBER, next_number=lambda s: 1 if s == LAST_NUMBER else s + 1),
            "nobody can go on",  # two odd numbers, so one half, in a row
        ),
    ],
    ids=["one half", "flag before data", "flag beside data", "first number 0", "wrap to 1"],
)
def test_what_would_be_wrong_is_found(wrong: Protocol, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        found = explore(wrong)
        assert found.fault is None, found.fault


def test_a_flag_after_the_data_is_right_where_writes_arrive_in_order() -> None:
    """So the explorer does not blame whatever has a flag of its own."""
    assert explore(Protocol(flag_in_data=False, in_order=True, flag_first=False)).fault is None


def test_numbers_use_the_halves_by_turns_and_never_say_empty() -> None:
    numbers = [FIRST_NUMBER, LAST_NUMBER - 2]
    for start in tuple(numbers):
        number = start
        for _ in range(5):
            following = next_number(number)
            assert half_of(following) != half_of(number)
            assert 0 < following <= LAST_NUMBER
            number = following
    assert next_number(LAST_NUMBER) == FIRST_NUMBER
