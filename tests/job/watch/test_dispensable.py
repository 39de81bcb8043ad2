"""Ranks without which the others go on: rank 0's view of them."""

from dataclasses import replace

from megdet_hvd.job.watch.handshake import new_secret
from megdet_hvd.job.watch.hub import Hub
from megdet_hvd.job.watch.identity import own_identity
from megdet_hvd.job.watch.judge import judge
from megdet_hvd.job.watch.member import WatchedJob
from megdet_hvd.job.watch.rank_state import RankState
from megdet_hvd.job.watch.start import Watchdog

LIMIT_S = 20.0
AT_WORK = RankState("computing", "backward", step=4)
DEAD = RankState("outside", "evaluation", link="closed", silent_s=10.0)
AWAITS_THE_DEAD = RankState("waiting", "evaluation.shares", (2, 3), age_s=30.0)
AWAITS_A_TRAINER = RankState("waiting", "gradients", (0, 1), age_s=30.0)
STOPPED = RankState("outside", "evaluation", silent_s=30.0)


def hub() -> Hub:
    """Ranks 0 and 1 train, 2 and 3 evaluate."""
    identities = [own_identity("here")] * 4
    job = WatchedJob(0, identities, LIMIT_S, new_secret(), print, 4, dispensable=frozenset({2, 3}))
    return Hub(job, None)


def verdict(watching: Hub, *states: RankState) -> list[int] | None:
    found = judge(watching._needed(dict(enumerate(states))), LIMIT_S)
    return None if found is None else [*found.culprits]


def test_the_end_of_a_dispensable_rank_is_no_hang() -> None:
    watching = hub()
    early = RankState("outside", "evaluation", link="closed", silent_s=9.0)
    assert verdict(watching, AT_WORK, AT_WORK, early, AT_WORK) is None
    assert Watchdog(watching).lost() == (), "its connection may come back"
    assert verdict(watching, AT_WORK, AT_WORK, AWAITS_THE_DEAD, DEAD) is None
    assert Watchdog(watching).lost() == (3,)
    # Whoever waits for one that is lost counts no more than it; the others do as before.
    assert verdict(watching, AT_WORK, AT_WORK, DEAD, DEAD) is None
    assert verdict(watching, AWAITS_A_TRAINER, DEAD, DEAD, DEAD) == [1]


def test_a_trainer_that_ends_or_an_evaluator_that_hangs_ends_the_job() -> None:
    assert verdict(hub(), AT_WORK, DEAD, AT_WORK, AT_WORK) == [1]
    assert verdict(hub(), AT_WORK, AT_WORK, AT_WORK, STOPPED) == [3]
    # Trainers go on for many steps without it, and then wait for its results in vain.
    went = replace(STOPPED, others_went=5)
    assert verdict(hub(), AT_WORK, AT_WORK, AT_WORK, went) == [3]
    assert verdict(hub(), AT_WORK, went, AT_WORK, AT_WORK) is None, "a trainer goes on unheard"


def test_at_the_end_nobody_is_dispensable() -> None:
    watching = hub()
    Watchdog(watching).need_all()
    assert verdict(watching, AT_WORK, AT_WORK, AT_WORK, DEAD) == [3]
    assert Watchdog(watching).lost() == ()
