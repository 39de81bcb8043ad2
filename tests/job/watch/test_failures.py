"""What is said of a rank that fails, and of one that ends without having said so."""

import threading
import time

import pytest

from megdet_hvd.job.watch import channel
from megdet_hvd.job.watch.handshake import new_secret
from megdet_hvd.job.watch.hub import Hub
from megdet_hvd.job.watch.identity import own_identity
from megdet_hvd.job.watch.member import WatchedJob
from megdet_hvd.job.watch.rank_state import RankState
from megdet_hvd.job.watch.spoke import Spoke
from megdet_hvd.job.watch.start import Watchdog

LIMIT_S = 30.0


def watched_pair(said: list[str]) -> tuple[Hub, Spoke]:
    """Ranks 0 and 1 of a job, both in this process."""
    secret = new_secret()
    jobs = [
        WatchedJob(r, [own_identity("here")] * 2, LIMIT_S, secret, said.append, 4) for r in range(2)
    ]
    server = channel.listen(loopback=True)
    hub = Hub(jobs[0], server)
    spoke = Spoke(jobs[1], channel.addresses(loopback=True), server.getsockname()[1])
    meeting = threading.Thread(target=spoke.meet, args=(10.0,))
    meeting.start()
    assert hub.meet(10.0) == []
    meeting.join()
    hub.start()
    spoke.start()
    return hub, spoke


def vanish(spoke: Spoke) -> None:
    """As the kernel takes a process down: its connection closes, and nobody says good-bye."""
    spoke.part = lambda message: None  # type: ignore[method-assign]
    spoke.stop()
    assert spoke._link is not None
    spoke._link.close()


@pytest.mark.parametrize("speaks", [True, False])
def test_the_last_words_are_its_own_where_it_has_any(speaks: bool) -> None:
    said: list[str] = []
    hub, spoke = watched_pair(said)
    if speaks:
        Watchdog(spoke).fail("ZeroDivisionError: in a step")
    vanish(spoke)
    end = time.monotonic() + 20
    while not said and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    hub.stop()
    (line,) = said
    words = "failed: ZeroDivisionError: in a step (" if speaks else "has ended without a word, "
    assert line.startswith(f"error: rank 1 (here) {words}")
    assert Watchdog(hub).last_words() == line.removeprefix("error: ")


def test_others_hear_of_the_failure_of_rank_0() -> None:
    hub, spoke = watched_pair([])
    assert Watchdog(hub).last_words() == Watchdog(None).last_words() == ""
    Watchdog(hub).fail("OverflowError: x")
    end = time.monotonic() + 20
    while not spoke.failures and time.monotonic() < end:
        time.sleep(0.05)
    assert spoke.failures == {0: "OverflowError: x"}
    assert "rank 0 (here) failed: OverflowError: x" in Watchdog(spoke).last_words()
    hub.last_words = "rank 2 (there) has ended without a word"
    assert hub.beat(hub.own.read(0.0))["fell"] == hub.last_words
    spoke.stop()
    hub.stop()


def test_the_others_are_told_that_the_job_ends() -> None:
    """And whom they must end, since it can't end itself: a stopped one."""
    hub, spoke = watched_pair([])
    told: list[list[int]] = []
    spoke.end_quietly = told.append  # type: ignore[assignment, method-assign]
    stopped = RankState("waiting", "x", (0, 1), link="open", silent_s=100.0)
    hub.before_end({0: RankState("computing", "x"), 1: stopped})
    end = time.monotonic() + 20
    while not told and time.monotonic() < end:
        time.sleep(0.05)
    assert told == [[1]]
    spoke.stop()
    hub.stop()
