"""Values between ranks: to all, to rank 0 alone, and a single bit. Over both launchers."""

import pytest

from tests.pool import on_ranks
from tests.ranks import Launcher


@pytest.mark.parametrize("launcher", [pytest.param("gloo", marks=pytest.mark.tail), "mpirun"])
def test_what_only_rank_0_needs_goes_to_rank_0_alone(launcher: Launcher) -> None:
    ranks = on_ranks("tests.job.check_exchange:exchanged", 3, launcher=launcher).values
    lengths = [["", "x" * 1000, "x" * 2000], [["", {"rank": rank}] for rank in range(3)]]
    assert ranks[0]["on_main"] == lengths
    assert all(rank["on_main"] == [None, None] for rank in ranks[1:])
    assert all(rank["everywhere"] == lengths for rank in ranks)
    # Two values of two others: rank 0 alone reads them, where all need them everybody does.
    assert [rank["reads"] for rank in ranks] == [[4, 4], [0, 4], [0, 4]]


@pytest.mark.parametrize("launcher", [pytest.param("gloo", marks=pytest.mark.tail), "mpirun"])
def test_a_value_too_large_for_one_message_goes_in_pieces(launcher: Launcher) -> None:
    ranks = on_ranks("tests.job.check_exchange:exchanged", 3, launcher=launcher).values
    for rank in ranks:
        assert rank["large"] == "y" * 1000
        first, *pieces, last = rank["pieces"]
        assert first == 1, "its length"
        assert pieces == [300] * 3 and 100 < last <= 300


def test_an_agreement_without_an_error_is_one_number() -> None:
    ranks = on_ranks("tests.job.check_exchange:exchanged", 3, launcher="mpirun").values
    assert all(rank["said"] == [True, True, True, False] for rank in ranks)
    assert all(rank["gathers"] == [0, 1] for rank in ranks), "the texts travel where there are any"
    assert all(rank["text"] == "rank 1: bad" for rank in ranks)


@pytest.mark.parametrize("launcher", [pytest.param("gloo", marks=pytest.mark.tail), "mpirun"])
def test_what_rank_0_decides_is_all_that_the_others_read(launcher: Launcher) -> None:
    ranks = on_ranks("tests.job.check_exchange:decided", 3, launcher=launcher).values
    assert all(rank["everyone"] == [0, 1, 2] for rank in ranks)
    assert ranks[0]["reads"] >= 2 and all(rank["reads"] == 1 for rank in ranks[1:])
    for rank in ranks:
        assert rank["text"] == ("meeting here: ranks [2] are at ['there']"), (
            "rank 0 says where each has come to"
        )
