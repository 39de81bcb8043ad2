import pytest

from megdet_hvd.job.watch.judge import Verdict, judge
from megdet_hvd.job.watch.rank_state import LinkState, RankState, Silence
from megdet_hvd.job.watch.report import report

LIMIT = 60.0
ALL = tuple(range(4))


def waits(
    name: str, ranks: tuple[int, ...], age: float, *, values: int = 0, step: int = 12
) -> RankState:
    return RankState("waiting", name, ranks, values, age, step)


def busy(age: float, *, step: int = 12) -> RankState:
    return RankState("computing", f"step {step}", age_s=age, step=step)


def outside(what: str, age: float) -> RankState:
    return RankState("outside", what, age_s=age, step=12)


def unheard(silent: float, *, link: LinkState = "open", step: int = 12, went: int = 0) -> RankState:
    return RankState(
        "computing",
        f"step {step}",
        age_s=0.5,
        step=step,
        link=link,
        silent_s=silent,
        others_went=went,
    )


def table(*states: RankState) -> dict[int, RankState]:
    return dict(enumerate(states))


def found(states: dict[int, RankState]) -> Verdict:
    verdict = judge(states, LIMIT)
    assert verdict is not None
    return verdict


HEALTHY = {
    "nobody waits": table(busy(1), busy(2), outside("evaluation", 900), busy(3)),
    "all evaluate for hours": table(*[outside("evaluation", 9000)] * 4),
    "a wait below the limit": table(waits("g", ALL, 59), busy(59), busy(59), busy(59)),
    "a busy rank is waited for": table(*[waits("g", ALL, 290)] * 3, busy(299)),
    "rank 0 evaluates": table(outside("evaluation", 1700), *[waits("g", ALL, 1700)] * 3),
    "the last rank has just come": table(*[waits("g", ALL, 100)] * 3, waits("g", ALL, 3)),
    # 0 and 1 wait for machine {2, 3}, where 2 waits for 3, which is busy for a good reason.
    "busy on another machine": table(
        *[waits("g", ALL, 100)] * 2, waits("bn", (2, 3), 90), busy(90)
    ),
    "missing beats": table(*[waits("g", ALL, 100)] * 3, unheard(59)),
    "a connection that may come back": table(*[busy(1)] * 3, unheard(9, link="closed")),
    "unheard, yet the others go on": table(*[busy(1, step=14)] * 3, unheard(500, went=2)),
    "lost and unheard, yet the others go on": table(
        *[busy(1, step=14)] * 3, unheard(500, link="closed", went=2)
    ),
    "no connection, and a wait below 30 limits": table(
        *[waits("g", ALL, 1700)] * 3, RankState("outside", "unknown", link="never")
    ),
    "one has left": table(*[waits("hvd.shutdown", ALL, 1)] * 3, unheard(0, link="left")),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_job_that_lives(name: str) -> None:
    assert judge(HEALTHY[name], LIMIT) is None


HUNG = {
    "stopped": (table(*[waits("g", ALL, 61)] * 3, unheard(61)), {3: "no sign of life for 61 s"}),
    "stopped, and nobody waits": (table(*[busy(20)] * 3, unheard(60)), {3: "no sign of life"}),
    "stopped within a collective": (
        table(
            *[waits("g", ALL, 70)] * 3,
            RankState("waiting", "g", ALL, age_s=9.0, step=12, silent_s=61),
        ),
        {3: "no sign of life for 61 s"},
    ),
    "waited for, though the others went on": (
        table(*[waits("g", ALL, 61, step=20)] * 3, unheard(500, step=12, went=8)),
        {3: "no sign of life for 500 s"},
    ),
    # Steps of 0.2 s: between its last beat and being missed, the others got ahead.
    "stopped, and heard of last some steps ago": (
        table(*[busy(61, step=17)] * 3, unheard(61, step=12, went=1)),
        {3: "no sign of life for 61 s"},
    ),
    "dead": (table(*[busy(1)] * 3, unheard(10, link="closed")), {3: "its process has ended"}),
    "stuck in a step": (
        table(*[waits("g", ALL, 599)] * 3, busy(600)),
        {3: "has not come to its next collective for 600 s"},
    ),
    "a GPU hangs, and with it all": (
        table(*[busy(1800)] * 4),
        dict.fromkeys(range(4), "has not come to its next collective for 1800 s"),
    ),
    "stuck outside": (
        table(*[waits("g", ALL, 1799)] * 3, outside("fetching pictures", 1800)),
        {3: "busy for 1800 s with: fetching pictures"},
    ),
    "left": (
        table(*[waits("g", ALL, 60)] * 3, unheard(0, link="left")),
        {3: "it has left the job"},
    ),
    "no connection for 30 limits": (
        table(*[waits("g", ALL, 1800)] * 3, RankState("outside", "unknown", link="never")),
        {3: "no connection to rank 0"},
    ),
    # The second machine's rank 3 skipped a layer and waits for the gradients; 0 is busy.
    "a layer skipped, all of machine 1 elsewhere": (
        table(busy(100), waits("g", ALL, 5), waits("bn.7", (2, 3), 61), waits("g", ALL, 60)),
        {
            2: "waits in bn.7 for rank 3, which is elsewhere",
            3: "waits in g for ranks 0, 2, which are elsewhere",
        },
    ),
    "another length": (
        table(*[waits("bn", ALL, 60, values=129)] * 3, waits("bn", ALL, 60, values=257)),
        {3: "waits in bn with 257 values for ranks 0-2, which are elsewhere"},
    ),
    "another layer of the same ranks": (
        table(*[waits("bn.7", ALL, 61)] * 3, waits("bn.8", ALL, 60)),
        {3: "waits in bn.8 for ranks 0-2, which are elsewhere"},
    ),
    "three in a ring": (
        table(waits("a", (0, 1), 61), waits("b", (1, 2), 61), waits("c", (0, 2), 61), busy(1)),
        {0: "waits in a for rank 1", 1: "waits in b for rank 2", 2: "waits in c for rank 0"},
    ),
    "the network": (table(*[waits("g", ALL, 60)] * 4), {}),
}


@pytest.mark.parametrize("name", HUNG)
def test_a_job_that_hangs(name: str) -> None:
    states, expected = HUNG[name]
    culprits = found(states).culprits
    assert culprits.keys() == expected.keys()
    for rank, reason in expected.items():
        assert reason in culprits[rank]


def test_how_far_the_others_went_since_a_rank_was_missed() -> None:
    silence = Silence()
    silence.hear(10.0)
    steps = [(10.5, 7), (12.9, 9), (13.1, 12), (20.0, 13), (70.0, 14)]
    found = [silence.add_to(busy(0), now, newest) for now, newest in steps]
    assert [state.others_went for state in found] == [0, 0, 0, 1, 2]
    assert found[-1].silent_s == 60.0
    silence.hear(70.0)
    assert silence.add_to(busy(0), 74.0, 14).others_went == 0


def test_a_rank_knows_of_rank_0_and_itself_only() -> None:
    own = waits("g", ALL, 61)
    assert found({0: unheard(61), 2: own}).culprits.keys() == {0}
    assert judge({0: unheard(5), 2: own}, LIMIT) is None
    assert judge({2: own}, LIMIT) is None
    assert found({2: waits("g", ALL, 1800)}).culprits.keys() == {0, 1, 3}


MACHINES_128 = [tuple(range(machine, 128, 16)) for machine in range(16)]
"""16 machines of 8, ranks dealt out in turn: rank 37 is on the sixth, 5, 21, 37, …, 117."""


def test_the_collective_is_named_even_where_the_wait_is_young() -> None:
    states = table(
        waits("bn", (0, 1), 70), waits("bn", (0, 1), 2), waits("x", (2, 3), 59), unheard(60)
    )
    verdict = found(states)
    assert [(w.name, w.here, w.missing) for w in verdict.waits] == [("x", (2,), (3,))]
    (wait,) = found(table(*[waits("g", ALL, 60)] * 4)).waits
    assert (wait.name, wait.here, wait.missing) == ("g", ALL, ())


def test_128_ranks_on_interleaved_machines_one_skipped_a_layer() -> None:
    everyone = tuple(range(128))
    bn = "cgbn.backbone.body.layer1.0.bn2.forward.0"
    states = {rank: waits("gradients", everyone, 61.4) for rank in everyone}
    for rank in MACHINES_128[5]:
        states[rank] = waits(bn, MACHINES_128[5], 62.0, values=129)
    states[37] = waits("gradients", everyone, 61.8)
    states |= dict.fromkeys(MACHINES_128[2], busy(40))
    verdict = found(states)
    assert verdict.culprits.keys() == {37}
    assert verdict.waits[0].name == bn and verdict.waits[0].missing == (37,)
    hosts = [f"n{rank % 16}" for rank in everyone]
    text = report(verdict, states, hosts, {37: "  File x, line 1\n"}, 4)
    assert text.splitlines()[:3] == [
        "error: the job hangs and is ended by its watchdog, exit code 4",
        "  rank 37 (n5): waits in gradients for ranks 2, 5, 18, 21, 34, 50, 53, 66, 69, 82, 85, "
        "98, 101, 114, 117, which are elsewhere",
        f"  {bn} needs ranks 5, 21, 37, 53, 69, 85, 101, 117; waited in for 62 s by "
        "5, 21, 53, 69, 85, 101, 117; missing: 37",
    ]
    assert (
        f"  ranks 5, 21, 53, 69, 85, 101, 117 (n5): step 12, in {bn} (129 values), for 62 s" in text
    )
    assert "  ranks 2, 18, 34, 50, 66, 82, 98, 114 (n2): step 12, computing, for 40 s" in text
    assert "(n0, n1, n3, n4 and 11 more hosts): step 12, in gradients, for 62 s" in text
    assert text.splitlines()[-2:] == ["stack of rank 37 (n5):", "    File x, line 1"]


def test_the_report_says_who_was_not_heard() -> None:
    states = table(waits("g", ALL, 61), waits("g", ALL, 61), unheard(61))
    text = report(found(states), states, ["n1", "n1", "n2", "n2"], {}, 4)
    assert "  rank 2 (n2): no sign of life for 61 s: stopped, swapping, or its machine" in text
    assert "  rank 2 (n2): last heard of 61 s ago; step 12, computing, for 0 s" in text
    assert "  ranks 0-1 (n1): step 12, in g, for 61 s" in text
    assert "  rank 3 (n2): unknown, no connection" in text
    text = report(found(table(*[waits("g", ALL, 60)] * 4)), {}, ["n1"] * 4, {}, 4)
    assert "all ranks are there and nothing moves: the network" in text
