"""Rounds of exchanges, and what tables of times say."""

import itertools
import math

import pytest

from megdet_hvd.preflight.links import (
    Exchange,
    describe_links,
    far_below,
    links_of,
    warn_of_slow,
)
from megdet_hvd.preflight.rounds import between_machines, tournament, within_machines

MIB = 2**20


@pytest.mark.parametrize("count", [2, 3, 4, 5, 7, 8, 9, 16, 17, 128])
def test_everybody_meets_several_others_one_at_a_time(count: int) -> None:
    rounds = tournament(count)
    for pairs in rounds:
        members = list(itertools.chain(*pairs))
        assert len(members) == len(set(members)) >= count - count % 2
        assert all(0 <= a < b < count for a, b in pairs)
    met = list(itertools.chain(*rounds))
    assert len(met) == len(set(met))
    expected = min(count - 1 + count % 2, max(3, math.ceil(math.log2(count))))
    assert len(rounds) == expected
    if count <= 4:
        assert set(met) == set(itertools.combinations(range(count), 2))


def test_nobody_to_meet() -> None:
    assert tournament(1) == [] == tournament(0)


def test_ranks_of_uneven_machines() -> None:
    machines = ((0, 1, 2), (3, 4))
    assert between_machines(machines) == [[(0, 3), (1, 4)]]
    inner = within_machines(machines)
    assert sorted(itertools.chain(*inner)) == [(0, 1), (0, 2), (1, 2), (3, 4)]
    assert within_machines(((0,), (1,))) == []


def exchange(a: int, b: int, rate: float, latency_s: float = 1e-4) -> Exchange:
    large = 16 * MIB
    return Exchange(a, b, 1024, large, latency_s, latency_s + (large - 1024) / rate)


def cluster(nodes: int, slow: int, factor: float = 8, local: int = 2) -> list[Exchange]:
    """What a cluster of nodes × ``local`` ranks measures where one node's port is slow."""
    machines = [range(local * i, local * i + local) for i in range(nodes)]
    return [
        exchange(a, b, 1e9 / (factor if slow in (a // local, b // local) else 1))
        for pairs in between_machines(machines)
        for a, b in pairs
    ]


@pytest.mark.parametrize("nodes", [3, 4, 5, 9, 16])
def test_a_slow_machine_is_named_wherever_it_stands(nodes: int) -> None:
    machines = tuple((2 * i, 2 * i + 1) for i in range(nodes))
    names = [f"n{i + 1}" for i in range(nodes)]
    for slow in range(nodes):
        links = links_of(cluster(nodes, slow), machines)
        found = far_below(links)
        assert list(found) == [slow]
        assert found[slow] == pytest.approx((2 * 1e9 / 8, 2 * 1e9))
        (warning,) = warn_of_slow(links, names)
        assert warning.startswith(f"n{slow + 1} is far below the others: 250 MB/s to other")
        assert "the median machine has 2000 MB/s" in warning


def test_a_machine_at_two_thirds_is_not_far_below() -> None:
    machines = tuple((2 * i, 2 * i + 1) for i in range(8))
    assert far_below(links_of(cluster(8, 3, factor=1.5), machines)) == {}


def test_of_one_link_nobody_says_whose_fault_it_is() -> None:
    assert far_below(links_of([exchange(0, 1, 1e6)], ((0,), (1,)))) == {}


def test_a_slow_machine_inside() -> None:
    machines = ((0, 1), (2, 3), (4, 5))
    rates = (9e9, 1e9, 9e9)
    links = links_of([exchange(2 * i, 2 * i + 1, rates[i]) for i in range(3)], machines)
    (warning,) = warn_of_slow(links, ["n1", "n2", "n3"])
    assert warning.startswith("n2 is far below the others: 1000 MB/s between its ranks")


def test_the_slowest_link_with_rate_and_latency() -> None:
    machines = ((0, 1), (2, 3), (4, 5))
    times = [
        exchange(0, 2, 4e8),
        exchange(1, 3, 4e8, 2.5e-4),
        exchange(0, 4, 2e9),
        exchange(2, 4, 2e9),
        exchange(4, 5, 5e5),
    ]
    assert describe_links(links_of(times, machines), ["n1", "n2", "n3"]) == [
        "between machines: slowest link n1 – n2: 800 MB/s, 250 µs (median of 3: 2000 MB/s, 100 µs)",
        "within machines: slowest link ranks 4 – 5 on n3: 0.5 MB/s, 100 µs",
    ]


def test_a_message_too_quick_to_tell_from_a_small_one_still_has_a_rate() -> None:
    assert Exchange(0, 1, 1024, 10**6, 0.001, 0.001).rate == pytest.approx(1e9)
