"""Facts of made-up jobs, and the words that name what differs."""

import dataclasses
from collections.abc import Sequence

import pytest

from megdet_hvd.preflight.compare import check_facts
from megdet_hvd.preflight.facts import RankFacts

GOOD = RankFacts(
    host="n1",
    code={"engine": "91bc0000", "train": "aa000000"},
    settings={"learning": "11110000", "data": "22220000"},
    versions={"Python": "3.11.7", "torch": "2.14.1", "horovod": "0.28.1"},
    nodes=16,
    tasks_per_node=8,
)
MACHINES = tuple(tuple(range(8 * i, 8 * i + 8)) for i in range(16))


def job(changed: dict[int, dict[str, object]] | None = None) -> list[RankFacts]:
    """128 ranks on n1…n16, some of them changed."""
    facts = [dataclasses.replace(GOOD, host=f"n{rank // 8 + 1}") for rank in range(128)]
    for rank, changes in (changed or {}).items():
        facts[rank] = dataclasses.replace(facts[rank], **changes)  # type: ignore[arg-type]
    return facts


def on_n2(**changes: object) -> dict[int, dict[str, object]]:
    return {rank: changes for rank in range(8, 16)}


def test_a_job_that_fits() -> None:
    assert check_facts(job(), MACHINES) is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            on_n2(code={**GOOD.code, "engine": "3f2a0000"}),
            "code differs in engine: ranks 8-15 (n2) have 3f2a0000, the other 120 ranks 91bc0000; "
            "update the checkout there",
        ),
        (
            {127: {"settings": {**GOOD.settings, "learning": "33330000"}}},
            "configuration differs in learning: rank 127 (n16) has 33330000, the other 127 ranks "
            "11110000",
        ),
        (
            on_n2(versions={**GOOD.versions, "torch": "2.11.0"}),
            "torch differs: ranks 8-15 (n2) have 2.11.0, the other 120 ranks 2.14.1",
        ),
        (
            on_n2(problem="driver 550.1 is older than CUDA 13.0 asks for (≥ 580.65)"),
            "ranks 8-15 (n2): driver 550.1 is older",
        ),
        (
            {3: {"gpu_uuid": "GPU-1"}, 5: {"gpu_uuid": "GPU-1"}},
            "ranks 3, 5 (n1) share one GPU (GPU-1)",
        ),
        (
            {rank: {"gpu_uuid": f"GPU-{rank}"} for rank in range(127)},
            "some ranks compute on a GPU, others don't: rank 127 (n16) has none",
        ),
    ],
)
def test_who_differs_and_what_mends_it(changed: dict[int, dict[str, object]], words: str) -> None:
    text = check_facts(job(changed), MACHINES)
    assert text is not None
    assert words in text
    assert text.count("\n") <= 2  # nothing else is said to differ, but for GPUs


def test_the_same_number_on_two_machines_is_not_one_gpu() -> None:
    """UUIDs are unique; where a driver has none, equal texts on two hosts are two cards."""
    every = {rank: {"gpu_uuid": f"GPU-{rank % 8}"} for rank in range(128)}
    assert check_facts(job(every), MACHINES) is None  # type: ignore[arg-type]


def test_of_two_halves_the_one_with_rank_0_is_right() -> None:
    facts = [GOOD, dataclasses.replace(GOOD, host="n2", versions={"torch": "3"})]
    facts = [dataclasses.replace(fact, nodes=None, tasks_per_node=None) for fact in facts]
    text = check_facts(facts, ((0,), (1,)))
    assert text is not None
    assert "torch differs: rank 1 (n2) has 3, rank 0 2.14.1" in text


@pytest.mark.parametrize(
    ("machines", "words"),
    [
        (MACHINES[:8], "16 machines were asked for and ranks run on 8 (n1, n2"),
        (
            ((0, 1, 2, 3), (*range(4, 16),), *MACHINES[2:]),
            "n1 (machine 1) runs 4 ranks (0-3), 8 were asked for; look at --ntasks-per-node",
        ),
    ],
)
def test_another_shape_than_was_asked_for(machines: Sequence[tuple[int, ...]], words: str) -> None:
    text = check_facts(job()[: sum(map(len, machines))], tuple(machines))
    assert text is not None
    assert words in text


def test_machines_of_one_name_are_told_apart() -> None:
    facts = [dataclasses.replace(GOOD, nodes=None, tasks_per_node=None) for _ in range(4)]
    facts[3] = dataclasses.replace(facts[3], versions={})
    text = check_facts(facts, ((0, 1), (2, 3)))
    assert text is not None
    assert "rank 3 (n1 (machine 2)) has unknown" in text
