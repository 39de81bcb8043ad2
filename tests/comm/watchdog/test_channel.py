"""Rank 0's watchdog and those of others, over loopback, in one process."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from megdet_hvd.comm.watchdog.channel import Link, Message, addresses, hello, is_welcome, listen
from megdet_hvd.comm.watchdog.hub import Hub
from megdet_hvd.comm.watchdog.identity import Identity, kill, own_identity
from megdet_hvd.comm.watchdog.judge import Verdict
from megdet_hvd.comm.watchdog.member import Job
from megdet_hvd.comm.watchdog.spoke import Spoke
from megdet_hvd.comm.watchdog.standing import AwakeClock, Standing

SECRET = "s" * 32
SOMEBODY = Identity("n1", "", "", 1, "")


class Watching(Hub):
    """Keeps its verdict instead of ending the job."""

    verdict: Verdict | None = None

    def end(
        self, verdict: Verdict, standings: Mapping[int, Standing], stacks: Mapping[int, str]
    ) -> None:
        self.verdict = verdict
        self._stop.set()


def job(rank: int, size: int = 3, limit_s: float = 2.0) -> Job:
    return Job(rank, [SOMEBODY] * size, limit_s, SECRET, lambda text: None, 4)


@pytest.fixture
def hub() -> Iterator[tuple[Watching, int]]:
    server = listen(loopback=True)
    hub = Watching(job(0), server)
    yield hub, server.getsockname()[1]
    hub.stop()
    server.close()


def connect(port: int) -> Link:
    return Link(socket.create_connection(("127.0.0.1", port), timeout=5))


def receive(link: Link, hub: Hub | None = None, seconds: float = 10.0) -> Message | None:
    """The next message; ``hub`` is served meanwhile where its thread does not run."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and link.state == "open":
        if hub is not None:
            hub._hear(0)
        if (message := link.receive_one()) is not None:
            return message
        time.sleep(0.01)
    return None


def enter(hub: Hub, port: int, rank: int) -> Link:
    link, greeting = connect(port), hello(SECRET, rank)
    link.send(greeting)
    answer = receive(link, hub)
    assert answer is not None and is_welcome(answer, greeting, SECRET)
    return link


def beat(link: Link) -> None:
    link.send({"beat": Standing("computing", "step 1", step=1).as_message()})


def wait_for_verdict(hub: Watching, *alive: Link, seconds: float = 30.0) -> Verdict | None:
    end = time.monotonic() + seconds
    while hub.verdict is None and time.monotonic() < end:
        for link in alive:
            beat(link)
        time.sleep(0.1)
    return hub.verdict


def test_a_message_larger_than_the_sockets_buffers_comes_whole() -> None:
    ours, theirs = _pair()
    ours.send({"stack": "x" * 3_000_000})
    ours.send({"bye": True})
    found: list[Message] = []
    while len(found) < 2:
        ours.flush()
        found += theirs.receive()
    assert len(found[0]["stack"]) == 3_000_000 and found[1] == {"bye": True}
    ours.close()
    assert theirs.receive_one() is None and theirs.state == "ended"
    theirs.close()


def _pair() -> tuple[Link, Link]:
    server = listen(loopback=True)
    ours = connect(server.getsockname()[1])
    server.setblocking(True)
    theirs = Link(server.accept()[0])
    server.close()
    return ours, theirs


@pytest.mark.parametrize("nonsense", [b"GET / HTTP/1.1\r\n", b"[1]\n", b"\xff\xfe\n"])
def test_nonsense_ends_the_connection(nonsense: bytes) -> None:
    ours, theirs = _pair()
    ours.socket.send(nonsense)
    time.sleep(0.05)
    assert list(theirs.receive()) == [] and theirs.state == "lost"
    ours.close()
    theirs.close()


def test_strangers_are_not_let_in(hub: tuple[Watching, int]) -> None:
    served, port = hub
    greetings: list[Message] = [
        hello("another job's", 1),
        {**hello(SECRET, 1), "hello": 2},
        hello(SECRET, 0),
        hello(SECRET, 3),
        {"beat": {}},
    ]
    for greeting in greetings:
        link = connect(port)
        link.send(greeting)
        assert receive(link, served) is None and link.state == "ended", greeting
        link.close()
    assert served.meet(0) == [1, 2]
    enter(served, port, 2).close()


def test_silent_dead_and_gone_in_order(hub: tuple[Watching, int]) -> None:
    served, port = hub
    first, second = enter(served, port, 1), enter(served, port, 2)
    assert served.meet(0) == []
    served.start()
    beat(first)
    beat(second)
    second.send({"bye": True})
    second.close()
    assert wait_for_verdict(served, first, seconds=4) is None
    first.close()
    verdict = wait_for_verdict(served)
    assert verdict is not None
    assert verdict.culprits == {1: "its process has ended"}


def test_a_silent_rank(hub: tuple[Watching, int]) -> None:
    served, port = hub
    first, second = enter(served, port, 1), enter(served, port, 2)
    served.start()
    verdict = wait_for_verdict(served, first)
    assert verdict is not None and list(verdict.culprits) == [2]
    assert "no sign of life for" in verdict.culprits[2]
    first.close()
    second.close()


def test_a_rank_may_come_back(hub: tuple[Watching, int]) -> None:
    served, port = hub
    links = [enter(served, port, rank) for rank in (1, 2)]
    served.start()
    for _ in range(3):
        links[1].close()
        links[1] = connect(port)
        links[1].send(hello(SECRET, 2))
        assert wait_for_verdict(served, *links, seconds=1) is None
    assert wait_for_verdict(served, *links, seconds=3) is None
    for link in links:
        link.close()


def test_hub_and_spokes_meet_and_part(hub: tuple[Watching, int]) -> None:
    served, port = hub
    spokes = [Spoke(job(rank), ["127.0.0.1"], port) for rank in (1, 2)]
    served.start()
    assert all(spoke.meet(10) for spoke in spokes)
    for spoke in spokes:
        spoke.start()
    time.sleep(1)
    spokes[0].stop()
    time.sleep(2.5)
    assert served.verdict is None
    served.stop()
    time.sleep(2.5)  # a spoke whose rank 0 has left stays calm
    assert spokes[1]._thread.is_alive() and spokes[1]._hub.link == "left"
    spokes[1].stop()


def test_a_spoke_that_finds_nobody() -> None:
    server = listen(loopback=True)
    port = server.getsockname()[1]
    server.close()
    began = time.monotonic()
    spoke = Spoke(job(1), ["127.0.0.1", "::1"], port)
    assert not spoke.meet(0.3)
    assert time.monotonic() - began < 20
    spoke.start()
    time.sleep(1)
    assert spoke._thread.is_alive()
    spoke.stop()


def test_a_watchdog_that_fails_ends_nothing() -> None:
    said: list[str] = []

    class Failing(Watching):
        def tick(self, now: float) -> None:
            raise ZeroDivisionError("a fault of the watchdog")

    server = listen(loopback=True)
    served = Failing(replace(job(0), write=said.append), server)
    link = enter(served, server.getsockname()[1], 1)
    served.start()
    assert receive(link) == {"blind": True}
    served.stop()
    link.close()
    assert "watchdog of rank 0 failed" in said[0] and "a fault of the watchdog" in said[0]


def test_addresses_of_this_machine() -> None:
    assert addresses(loopback=True) == ["127.0.0.1"]
    found = addresses(loopback=False)
    assert found[-1] == "127.0.0.1" and len(set(found)) == len(found)
    assert not [a for a in found if a.startswith(("fe80", "169.254"))]


def test_a_pause_of_the_process_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 1.0, 2.0, 3602.0, 3603.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    clock = AwakeClock(2.0)
    assert [clock.tick() for _ in range(4)] == [1.0, 2.0, 4.0, 5.0]


def test_only_the_very_process_is_killed() -> None:
    own = own_identity("n1")
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        text = Path(f"/proc/{child.pid}/stat").read_text()
        other = replace(own, pid=child.pid, start=text.rpartition(")")[2].split()[19])
        os.kill(child.pid, signal.SIGSTOP)
        for stranger in (
            replace(other, start="1"),
            replace(other, boot="another machine"),
            replace(other, pid_space="another container"),
            replace(other, boot=""),
        ):
            assert not kill(stranger, own), stranger
        assert not kill(own, own)
        assert child.poll() is None
        assert kill(other, own)
        assert child.wait(20) == -signal.SIGKILL
        assert not kill(other, own)
    finally:
        child.kill()
        child.wait()
