"""The watchdog of a rank other than 0: tells rank 0 where this one stands, and does as it says.

Where rank 0 is silent or gone, it judges by itself, knowing of nobody but rank 0 and itself.
"""

import selectors
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from megdet_hvd.comm import position
from megdet_hvd.job import stopping
from megdet_hvd.job.watch.channel import LineSocket
from megdet_hvd.job.watch.handshake import Message, hello, is_welcome, session_key
from megdet_hvd.job.watch.judge import judge
from megdet_hvd.job.watch.lost_ranks import ended_words, failed_words
from megdet_hvd.job.watch.member import (
    LET_REPORTER_END_S,
    LONGEST_REASON,
    Member,
    WatchedJob,
    own_stack,
)
from megdet_hvd.job.watch.rank_state import NEVER_HEARD, RankState, Silence

_CONNECT_S = 2.0
_RECONNECT_S = 1.0


class Spoke(Member):
    """One connection to rank 0, made anew where it breaks."""

    def __init__(self, job: WatchedJob, addresses: Sequence[str], port: int) -> None:
        super().__init__(job)
        self._addresses = list(addresses)
        self._port = port
        self._link: LineSocket | None = None
        self._hub = NEVER_HEARD
        self._silence = Silence()
        self._turn = 0
        self._convinced: float | None = None

    def meet(self, deadline_s: float) -> bool:
        """Connect to rank 0 at whichever of its addresses answers; whether that succeeded."""
        end = time.monotonic() + deadline_s
        while self._link is None and self._addresses and time.monotonic() < end:
            self._connect(_CONNECT_S)
            if self._link is None:
                time.sleep(0.05)
        return self._link is not None

    def tick(self, now: float) -> None:
        """Beat, hear, and judge where rank 0 does not."""
        if self._link is None and self._addresses and self._hub.link != "left":
            self._connect(_RECONNECT_S)
            now = self.clock.tick()
        own = self.own.read(now)
        if self._link is not None:
            self._link.send(self.beat(own))
            self._listen(now)
        self._told = stopping.requested()  # where there is no link, at the next connection
        hub = self._silence.add_to(self._hub, now, own.step)
        if self._link is not None and hub.silent_s < self.job.limit_s:
            self._convinced = None
            return
        states = {0: hub, self.job.rank: own}
        verdict = judge(states, self.job.limit_s)
        if verdict is None:
            self._convinced = None
            return
        # All ranks come to this together; one report is enough, and the first ends the job.
        if self._convinced is None:
            self._convinced = now
        if self.job.rank == 1 or now - self._convinced >= LET_REPORTER_END_S:
            self.end(verdict, states, {self.job.rank: own_stack()})

    def part(self, message: str) -> None:
        """Say so to rank 0, and close."""
        if self._link is not None:
            self._link.send({message: True})
            self._link.close()

    def before_end(self, states: Mapping[int, RankState]) -> None:
        """Nothing: where rank 0 is silent there is no way to the others, and each judges itself."""

    def listen(self, who: Any) -> None:
        """Rank 0 speaks."""
        if self._link is not None:
            self._listen(self.clock.tick())

    def _listen(self, now: float) -> None:
        link = self._link
        assert link is not None
        try:
            self._take_in(link, now)
        except Exception:
            link.state = "lost"  # what can't be read costs the connection, not the watch
        if link.state != "open":
            self._selector.unregister(link.socket)
            link.close()
            self._link = None
            unheard_s = now - self._silence.heard
            self._silence.hear(now)
            if self._hub.link == "open" and link.state == "ended":
                if (
                    self.job.rank == 1 and not self.failures
                ):  # one is enough, and nobody else can tell
                    lost = {0: replace(self._hub, silent_s=unheard_s)}
                    own = {1: self.own.read(now)}
                    self.tell_end_of(ended_words(lost, own, self.job.hosts))
                self._hub = replace(self._hub, link="closed")

    def _take_in(self, link: LineSocket, now: float) -> None:
        """What rank 0 says. Raises whatever nonsense makes Python raise."""
        for message in link.receive():
            self._silence.hear(now)
            if "beat" in message:
                self._hub = self.state_of(message["beat"])
                if "stop" in message:
                    stopping.request(str(message["stop"])[:LONGEST_REASON])
                fallen = [0] if "failed" in message else []
                fallen += [int(rank) for rank in message.get("fallen", ())]
                position.give_up_device_sums(fallen)
                if "failed" in message:
                    self.failures[0] = str(message["failed"])[:LONGEST_REASON]
                    self.last_words = failed_words({0: self._hub}, self.failures, self.job.hosts)[0]
                elif "fell" in message:
                    self.last_words = str(message["fell"])[:LONGEST_REASON]
            elif "stack?" in message:
                link.send({"stack": own_stack()})
            elif "end" in message:
                known = range(len(self.job.identities))
                self.end_quietly([rank for rank in message["end"] if rank in known])
            elif "bye" in message:
                self._hub = replace(self._hub, link="left")
            elif "blind" in message:
                self._hub = NEVER_HEARD
                self._addresses = []

    def _connect(self, timeout_s: float) -> None:
        """Try the next address."""
        address = self._addresses[self._turn % len(self._addresses)]
        self._turn += 1
        try:
            connection = socket.create_connection((address, self._port), timeout=timeout_s)
        except OSError:
            return
        try:
            link = LineSocket(connection)
        except OSError:
            connection.close()
            return
        end = time.monotonic() + timeout_s + self.job.interval_s
        try:
            met = self._greet(link, end)
        except Exception:  # whoever listens there may say anything
            met = False
        if not met:
            link.close()
            return
        self._link = link
        self._selector.register(link.socket, selectors.EVENT_READ, None)
        self._addresses = [address]
        self._silence.hear(self.clock.tick())
        if self._hub.link == "never":
            self._hub = RankState("outside", "starting")
        self._hub = replace(self._hub, link="open")

    def _greet(self, link: LineSocket, end: float) -> bool:
        """Whether rank 0 of this job is at the other end; ``end`` by ``time.monotonic()``."""
        secret = self.job.secret
        challenge = _next_message(link, end)
        own_hello = None if challenge is None else hello(secret, self.job.rank, challenge)
        if challenge is None or own_hello is None:
            return False
        link.send(own_hello)
        # Rank 0 says nothing else before its welcome, but may at once after it.
        answer = _next_message(link, end)
        if answer is None or not is_welcome(answer, own_hello, challenge, secret):
            return False
        link.seal(session_key(own_hello, challenge, secret), "spoke")
        link.send(self.beat(self.own.read(self.clock.now)))
        return True


def _next_message(link: LineSocket, end: float) -> Message | None:
    while link.state == "open" and time.monotonic() < end:
        if (message := link.receive_one()) is not None:
            return message
        time.sleep(0.02)
    return None
