"""Rank 0's watchdog and those of others, over loopback, in one process."""

import errno
import json
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megdet_hvd.job.watch.channel import LineSocket, addresses, listen
from megdet_hvd.job.watch.handshake import Message, hello, is_welcome, seal, session_key
from megdet_hvd.job.watch.hub import Hub
from megdet_hvd.job.watch.identity import Identity, kill, own_identity
from megdet_hvd.job.watch.judge import Verdict
from megdet_hvd.job.watch.member import WatchedJob
from megdet_hvd.job.watch.rank_state import AwakeClock, RankState
from megdet_hvd.job.watch.spoke import Spoke

SECRET = "s" * 32
SOMEBODY = Identity("n1", "", "", 1, "")


class Watching(Hub):
    """Keeps its verdict instead of ending the job."""

    verdict: Verdict | None = None

    def end(
        self, verdict: Verdict, states: Mapping[int, RankState], stacks: Mapping[int, str]
    ) -> None:
        self.verdict = verdict
        self._stop.set()


def job(rank: int, size: int = 3, limit_s: float = 2.0) -> WatchedJob:
    return WatchedJob(rank, [SOMEBODY] * size, limit_s, SECRET, lambda text: None, 4)


@pytest.fixture
def hub() -> Iterator[tuple[Watching, int]]:
    server = listen(loopback=True)
    hub = Watching(job(0), server)
    yield hub, server.getsockname()[1]
    hub.stop()
    server.close()


def connect(port: int) -> LineSocket:
    return LineSocket(socket.create_connection(("127.0.0.1", port), timeout=5))


def receive(link: LineSocket, hub: Hub | None = None, seconds: float = 10.0) -> Message | None:
    """The next message; ``hub`` is served meanwhile where its thread does not run."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and link.state == "open":
        if hub is not None:
            hub._hear(0)
        if (message := link.receive_one()) is not None:
            return message
        time.sleep(0.01)
    return None


def enter(hub: Hub | None, port: int, rank: int) -> LineSocket:
    """``hub``: where its thread does not run."""
    link = connect(port)
    challenge = receive(link, hub)
    assert challenge is not None
    own_hello = hello(SECRET, rank, challenge)
    assert own_hello is not None
    link.send(own_hello)
    answer = receive(link, hub)
    assert answer is not None and is_welcome(answer, own_hello, challenge, SECRET)
    link.seal(session_key(own_hello, challenge, SECRET), "spoke")
    return link


def beat(link: LineSocket) -> None:
    link.send({"beat": RankState("computing", "step 1", step=1).as_message()})


def wait_for_verdict(hub: Watching, *alive: LineSocket, seconds: float = 30.0) -> Verdict | None:
    end = time.monotonic() + seconds
    while hub.verdict is None and time.monotonic() < end:
        for link in alive:
            beat(link)
        time.sleep(0.1)
    return hub.verdict


def test_a_message_larger_than_the_sockets_buffers_comes_whole() -> None:
    ours, theirs = _pair()
    ours.seal(b"key", "spoke")
    theirs.seal(b"key", "hub")
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


def _pair() -> tuple[LineSocket, LineSocket]:
    server = listen(loopback=True)
    ours = connect(server.getsockname()[1])
    server.setblocking(True)
    theirs = LineSocket(server.accept()[0])
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
    hellos: list[Callable[[Message], Message | None]] = [
        lambda challenge: hello("another job's", 1, challenge),
        lambda challenge: {**(hello(SECRET, 1, challenge) or {}), "hello": 2},
        lambda challenge: hello(SECRET, 0, challenge),
        lambda challenge: hello(SECRET, 3, challenge),
        lambda challenge: hello(SECRET, 1, {"challenge": "0" * 32}),
        lambda challenge: {"beat": {}},
    ]
    for own_hello in hellos:
        link = connect(port)
        challenge = receive(link, served)
        assert challenge is not None
        link.send(own_hello(challenge) or {})
        assert receive(link, served) is None and link.state == "ended", own_hello
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
        links[1] = enter(None, port, 2)
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


NONSENSE = (
    b"[" * 3000,
    b"[" * 200_000,
    b'{"a":' * 700,
    b'{"hello":1,"nonce":"x","proof":"\xc3\xa9"}',
    b'{"hello":1,"nonce":"\\ud800","proof":"x"}',
    b'{"hello":1,"nonce":"%s","proof":"\\ud800"}' % (b"0" * 32),
    b'{"hello":true,"nonce":"%s","proof":"x"}' % (b"0" * 32),
    b'{"hello":1e999,"nonce":null,"proof":[]}',
    b'{"hello":' + b"9" * 3000 + b"}",
    b'{"challenge":7}',
    b"\xff" * 50,
    b"x" * 100_000,
)


def random_lines(seed: int, count: int) -> Iterator[bytes]:
    """Lines of strangers: of any bytes, of JSON, and of hellos with a few bytes changed."""
    drawn = random.Random(seed)
    values: tuple[Any, ...] = (
        None,
        True,
        -1,
        1,
        10**30,
        0.5,
        "",
        "é",
        "\ud800",
        [],
        {},
        [[[]]],
        "0" * 32,
    )
    for _ in range(count):
        kind = drawn.randrange(4)
        if kind == 0:
            yield drawn.randbytes(drawn.randrange(1, 200)).replace(b"\n", b"")
        elif kind == 1:
            keys = ("hello", "nonce", "proof", "beat", "challenge", "welcome")
            yield json.dumps({key: drawn.choice(values) for key in keys}).encode()
        elif kind == 2:
            line = bytearray(json.dumps(hello(SECRET, 1, {"challenge": "0" * 32})).encode())
            for _ in range(drawn.randrange(1, 5)):
                line[drawn.randrange(len(line))] = drawn.choice(b'"{}[]0:,\\\x80x')
            yield bytes(line).replace(b"\n", b"")
        else:
            yield drawn.choice(NONSENSE)


def test_thousands_of_strangers_lines_leave_the_watch_as_it_was(
    hub: tuple[Watching, int],
) -> None:
    """The lines of a seed; afterwards a rank may come, and one that is silent is found."""
    served, port = hub
    first, second = enter(served, port, 1), enter(served, port, 2)
    for line in (*NONSENSE, *random_lines(seed=7, count=3000)):
        with suppress(OSError):  # it may be dropped before all is said
            stranger = socket.create_connection(("127.0.0.1", port), timeout=5)
            served._hear(0.05)
            stranger.sendall(line[: 1 << 16] + b"\n")
            served._hear(0.05)
            stranger.close()
    assert len(served._strangers) <= 10
    served._hear(0.05)
    assert first.state == second.state == "open" and served.meet(0) == []
    served.start()
    verdict = wait_for_verdict(served, first)
    assert verdict is not None and list(verdict.culprits) == [2]
    first.close()
    second.close()


@pytest.mark.parametrize("line", NONSENSE[:7])
def test_nonsense_does_not_end_the_thread(hub: tuple[Watching, int], line: bytes) -> None:
    served, port = hub
    served.start()
    stranger = socket.create_connection(("127.0.0.1", port), timeout=5)
    with suppress(OSError):
        stranger.sendall(line + b"\n")
    enter(None, port, 1).close()
    assert served._thread.is_alive()
    stranger.close()


def test_no_more_strangers_than_ranks_and_eight(hub: tuple[Watching, int]) -> None:
    served, port = hub
    flood = [connect(port) for _ in range(60)]
    for link in flood:
        with suppress(OSError):
            link.socket.send(b"x" * 3000)  # no end of line
        served._hear(0.01)
    served._hear(0.05)
    assert len(served._strangers) <= 2 + 8
    assert all(len(link._unread) <= 4000 for link in served._strangers)
    enter(served, port, 1).close()
    for link in flood:
        link.close()


def test_too_many_open_files_keep_nobody_out_for_good(
    hub: tuple[Watching, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    served, port = hub

    class Full:
        def __init__(self, server: socket.socket) -> None:
            self.server, self.calls = server, 0

        def accept(self) -> None:
            self.calls += 1
            raise OSError(errno.EMFILE, "Too many open files")

        def fileno(self) -> int:
            return self.server.fileno()

        def close(self) -> None:
            self.server.close()

    server = served._server
    assert server is not None
    full = Full(server)
    monkeypatch.setattr(served, "_server", full)
    link = connect(port)
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        served._hear(0.01)
    assert full.calls == 1, "it waits instead of trying for ever"
    monkeypatch.setattr(served, "_server", server)
    end = time.monotonic() + 10
    while served._deaf_until is not None and time.monotonic() < end:
        served._hear(0.1)
    assert receive(link, served) is not None
    enter(served, port, 2).close()
    link.close()


def test_a_recorded_handshake_opens_nothing(hub: tuple[Watching, int]) -> None:
    """All that rank 1 said in one connection is said again in another."""
    served, port = hub
    true = enter(served, port, 1)
    first = connect(port)
    challenge = receive(first, served)
    assert challenge is not None
    recorded = hello(SECRET, 1, challenge)
    assert recorded is not None
    replay = connect(port)
    assert receive(replay, served) != challenge
    replay.send(recorded)
    assert receive(replay, served) is None and replay.state == "ended"
    beat(true)
    served._hear(0.1)
    assert served._peers[1].state.step == 1 and true.state == "open"
    for link in (first, replay, true):
        link.close()


@pytest.mark.parametrize("fault", ["again", "unsealed", "other key", "other direction"])
def test_each_line_belongs_to_its_connection_and_its_place(
    hub: tuple[Watching, int], fault: str
) -> None:
    served, port = hub
    link = enter(served, port, 1)
    line = json.dumps({"beat": RankState("computing", "x", step=9).as_message()}).encode()
    key = link._key
    assert key is not None
    sealed = seal(key, "spoke", 0, line) + line + b"\n"
    sent = {
        "again": sealed * 2,
        "unsealed": line + b"\n",
        "other key": seal(b"x", "spoke", 0, line) + line + b"\n",
        "other direction": seal(key, "hub", 0, line) + line + b"\n",
    }[fault]
    link.socket.sendall(sent)
    end = time.monotonic() + 5
    while served._peers[1].link is not None and time.monotonic() < end:
        served._hear(0.1)
    assert served._peers[1].link is None
    assert served._peers[1].state.step == (9 if fault == "again" else 0)
    link.close()


@pytest.mark.parametrize(
    "message",
    [
        {"beat": {}},
        {"beat": None},
        {"beat": {**RankState("computing", "x").as_message(), "kind": "sleeping"}},
        {"beat": {**RankState("computing", "x").as_message(), "ranks": [3]}},
        {"beat": {**RankState("computing", "x").as_message(), "ranks": ["1"]}},
        {"beat": {**RankState("computing", "x").as_message(), "step": -1}},
        {"beat": {**RankState("computing", "x").as_message(), "age_s": float("nan")}},
    ],
)
def test_a_ranks_nonsense_costs_it_its_connection_only(message: Message) -> None:
    said: list[str] = []
    server = listen(loopback=True)
    served = Watching(replace(job(0), write=said.append), server)
    link = enter(served, server.getsockname()[1], 1)
    link.send(message)
    end = time.monotonic() + 5
    while served._peers[1].link is not None and time.monotonic() < end:
        served._hear(0.1)
    assert "a message of rank 1 can't be read" in said[0]
    enter(served, server.getsockname()[1], 1).close()
    link.close()
    served.part("bye")


@pytest.mark.parametrize(
    "words",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b'{"challenge":"%s"}\n{"welcome":"\\ud800"}\n' % (b"0" * 32),
        b'{"challenge":"\\ud800"}\n',
        b'{"challenge":{"a":[]}}\n',
        b"[" * 3000 + b"\n",
        b"x" * 100_000,
    ],
)
def test_a_spoke_is_not_taken_in_by_another_server(words: bytes) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    served = threading.Thread(target=lambda: server.accept()[0].sendall(words), daemon=True)
    served.start()
    spoke = Spoke(job(1), ["127.0.0.1"], server.getsockname()[1])
    assert not spoke.meet(0.3) and spoke._hub.link == "never"
    served.join(5)
    spoke.start()
    time.sleep(0.2)
    assert spoke._thread.is_alive()
    spoke.stop()
    server.close()


def test_what_rank_0_says_may_be_nonsense() -> None:
    spoke = Spoke(job(1), ["127.0.0.1"], 1)
    lines: list[Message] = [{"beat": {}}, {"end": None}, {"beat": None}, {"stack?": 1}]
    for nonsense in lines:
        ours, theirs = _pair()
        for end, name in ((ours, "hub"), (theirs, "spoke")):
            end.seal(b"key", name)  # type: ignore[arg-type]
        spoke._link = theirs
        spoke._selector.register(theirs.socket, selectors.EVENT_READ, None)
        ours.send(nonsense)
        time.sleep(0.05)
        spoke.listen(None)
        assert (spoke._link is None) == ("stack?" not in nonsense), nonsense
        ours.close()
    spoke.part("bye")
