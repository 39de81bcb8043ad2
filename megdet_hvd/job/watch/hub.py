"""Rank 0's watchdog: hears of all ranks, judges, and tells them when the job ends."""

import selectors
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from megdet_hvd.comm import position
from megdet_hvd.job import stopping
from megdet_hvd.job.watch.channel import LineSocket
from megdet_hvd.job.watch.handshake import (
    Message,
    authenticated_rank,
    challenge,
    session_key,
    welcome,
)
from megdet_hvd.job.watch.judge import GRACE_S, judge
from megdet_hvd.job.watch.lost_ranks import ended_words, failed_words, terminated_words
from megdet_hvd.job.watch.member import LONGEST_REASON, Member, WatchedJob, own_stack, silent_ranks
from megdet_hvd.job.watch.rank_state import MISSED_S, NEVER_HEARD, RankState, Silence

_HELLO_S = 10.0
"""A connection that has not said hello by then is no rank's."""
_TELL_S = 1.0
"""For the last message to leave."""
_GATHER_S = 0.3
"""Ranks that fall together are told of together; a launcher leaves the others a second."""
_EXTRA_STRANGERS = 8
"""So many connections beside one for each rank may be without a handshake at a time."""
_ACCEPTED_AT_ONCE = 64
"""Whoever connects without end does not keep this thread from the ranks."""
_DEAF_S = 1.0
"""Where the process can open no more files, nobody is let in for so long."""
_LONGEST_STACK = 64_000
"""Characters of a stack, the innermost."""


_SERVER = "server"


@dataclass
class _Stranger:
    """A connection that has not said yet who it is."""

    since: float
    """By this rank's awake clock."""
    challenge: Message


@dataclass
class _Peer:
    """Another rank, as heard of."""

    link: LineSocket | None = None
    state: RankState = NEVER_HEARD
    silence: Silence = field(default_factory=Silence)
    """By this rank's awake clock."""
    stack: str | None = None
    terminated: bool = False
    """SIGTERM came to it."""


class Hub(Member):
    """Listens on one socket, and serves all ranks from one thread."""

    def __init__(self, job: WatchedJob, server: socket.socket | None) -> None:
        """``server`` listens; None: nobody can connect."""
        super().__init__(job)
        self._server = server
        self._peers = {rank: _Peer() for rank in range(1, len(job.identities))}
        self._strangers: dict[LineSocket, _Stranger] = {}
        """The oldest first."""
        self._deaf_until: float | None = None
        """By the awake clock; None: whoever connects is heard."""
        self._told_of_faults = False
        self._terminated: dict[int, RankState] = {}
        self._failed: dict[int, RankState] = {}
        self._ended: dict[int, RankState] = {}
        """Fallen ranks that nobody has told the user of, as they stood when last heard of."""
        self._since: float | None = None
        """``time.monotonic()`` of the first of them."""
        self._own_term_told = False
        self.lost: tuple[int, ...] = ()
        """Dispensable ranks whose processes have ended."""
        self.all_needed = False
        """No rank is dispensable any more."""
        if server is not None:
            self._selector.register(server, selectors.EVENT_READ, _SERVER)

    def meet(self, deadline_s: float) -> list[int]:
        """Wait until all ranks have connected; returns those that have not."""
        end = time.monotonic() + deadline_s
        while absent := [rank for rank, peer in self._peers.items() if peer.link is None]:
            if time.monotonic() >= end:
                break
            self._hear(0.1)
        return absent

    def tick(self, now: float) -> None:
        """Hear, answer, judge."""
        self._hear(0)
        own = self.own.read(now)
        self._tell(self.beat(own))
        states = self._states(own)
        self._say_last_words(states)
        verdict = judge(self._needed(states), self.job.limit_s)
        if verdict is None:
            return
        stacks = self._stacks(list(verdict.culprits))
        # Asking took a moment: has it gone on meanwhile?
        states = self._states(self.own.read(self.clock.tick()))
        verdict = judge(self._needed(states), self.job.limit_s)
        if verdict is not None:
            self.end(verdict, states, stacks)

    def beat(self, own: RankState) -> Message:
        """As any rank's, with what is known here of ranks that fell."""
        message = super().beat(own)
        if self.failures:
            message["fallen"] = sorted(self.failures)
        return {**message, "fell": self.last_words} if self.last_words else message

    def _needed(self, states: dict[int, RankState]) -> dict[int, RankState]:
        """Without the dispensable ranks, once one of them is lost; the rest of them is ended.

        They take no part in the others' steps: that those go on says nothing of a silent one.
        """
        dispensable = self.job.dispensable
        states = {
            rank: replace(own, others_went=0) if rank in dispensable else own
            for rank, own in states.items()
        }
        if not self.lost and not self.all_needed:
            patience_s = min(self.job.limit_s, GRACE_S)
            self.lost = tuple(
                rank
                for rank in sorted(dispensable)
                if states[rank].link == "closed" and states[rank].silent_s >= patience_s
            )
            for rank in dispensable if self.lost else ():
                link = self._peers[rank].link
                if link is not None:  # it waits for one that is lost
                    link.send({"end": []})
        if not self.lost:
            return states
        return {rank: own for rank, own in states.items() if rank not in dispensable}

    def news(self) -> bool:
        """A request to stop, or ranks that are lost."""
        if stopping.terminated() and not self._own_term_told:
            self._own_term_told = True
            self._note_lost(self._terminated, 0, self.own.read(self.clock.tick()))
        due = self._since is not None and time.monotonic() - self._since >= _GATHER_S
        return due or super().news()

    def before_end(self, states: Mapping[int, RankState]) -> None:
        """Tell all ranks, and whom they must help to end."""
        self._tell({"end": silent_ranks(states)})
        end = time.monotonic() + _TELL_S
        while time.monotonic() < end and not all([link.flush() for link in self._links()]):
            time.sleep(0.05)
        time.sleep(1.5 * self.job.interval_s)  # they listen once a beat

    def part(self, message: str) -> None:
        """Say so to all ranks, and close."""
        self._tell({message: True})
        for link in [*self._links(), *self._strangers]:
            link.close()
        if self._server is not None:
            self._server.close()

    def _links(self) -> list[LineSocket]:
        return [peer.link for peer in self._peers.values() if peer.link is not None]

    def _tell(self, message: Message) -> None:
        for link in self._links():
            link.send(message)

    def listen(self, who: Any) -> None:
        """A rank speaks, a stranger, or somebody wants to connect."""
        now = self.clock.tick()
        if who == _SERVER:
            self._accept(now)
            return
        link, rank = who
        try:
            if rank is None:
                self._greet(link, now)
            else:
                self._listen_to(rank, link, now)
        except Exception as fault:
            # Whatever somebody sends costs them their connection, and nobody else anything.
            self._give_up(link, rank, fault, now)

    def _give_up(self, link: LineSocket, rank: int | None, fault: Exception, now: float) -> None:
        link.state = "lost"  # of a stranger's, _hear does the rest
        if rank is None or self._peers[rank].link is not link:
            return
        self._lose(rank, link, now)
        if not self._told_of_faults:
            self._told_of_faults = True
            self.speak(
                f"warning: watchdog: a message of rank {rank} can't be read "
                f"({type(fault).__name__}: {str(fault)[:200]}); it has to connect anew"
            )

    def _hear(self, timeout_s: float) -> None:
        super()._hear(timeout_s if self._since is None else min(timeout_s, _GATHER_S))
        now = self.clock.tick()
        for link, stranger in list(self._strangers.items()):
            if now - stranger.since > _HELLO_S or link.state != "open":
                self._dismiss(link)
        if self._deaf_until is not None and now >= self._deaf_until:
            assert self._server is not None, "who is deaf has ears"
            self._deaf_until = None
            self._selector.register(self._server, selectors.EVENT_READ, _SERVER)

    def _accept(self, now: float) -> None:
        assert self._server is not None, "who is called has a number"
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _ = self._server.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError:
                # No more files, say. Who wants in stays in the queue, and would wake us for ever.
                self._selector.unregister(self._server)
                self._deaf_until = now + _DEAF_S
                return
            self._let_in(connection, now)

    def _let_in(self, connection: socket.socket, now: float) -> None:
        if len(self._strangers) >= len(self._peers) + _EXTRA_STRANGERS:
            self._dismiss(next(iter(self._strangers)))  # a rank takes milliseconds to say hello
        try:
            link = LineSocket(connection)
            self._selector.register(connection, selectors.EVENT_READ, (link, None))
        except OSError:
            connection.close()
            return
        self._strangers[link] = stranger = _Stranger(now, challenge())
        link.send(stranger.challenge)

    def _dismiss(self, link: LineSocket) -> None:
        del self._strangers[link]
        self._drop(link)

    def _greet(self, link: LineSocket, now: float) -> None:
        stranger = self._strangers.get(link)
        if stranger is None:
            return  # dismissed since the selector named it
        message = link.receive_one()
        if message is None:
            return
        rank = authenticated_rank(message, stranger.challenge, self.job.secret)
        if rank not in self._peers:
            link.state = "lost"
            return
        del self._strangers[link]
        peer = self._peers[rank]
        if peer.link is not None:
            self._drop(peer.link)
        peer.link = link
        peer.silence.hear(now)
        if peer.state.link == "never":
            peer.state = RankState("outside", "starting")
        peer.state = replace(peer.state, link="open")
        self._selector.modify(link.socket, selectors.EVENT_READ, (link, rank))
        link.send(welcome(message, stranger.challenge, self.job.secret))
        link.seal(session_key(message, stranger.challenge, self.job.secret), "hub")
        self._listen_to(rank, link, now)

    def _listen_to(self, rank: int, link: LineSocket, now: float) -> None:
        peer = self._peers[rank]
        if peer.link is not link:
            return  # replaced by a newer one since the selector named it
        for message in link.receive():
            peer.silence.hear(now)
            if "beat" in message:
                peer.state = self.state_of(message["beat"])
                self._heed(rank, peer, message)
            elif "stack" in message:
                peer.stack = str(message["stack"])[-_LONGEST_STACK:]
            elif "bye" in message:
                peer.state = replace(peer.state, link="left")
            elif "blind" in message:
                peer.state = NEVER_HEARD
        if link.state != "open":
            self._lose(rank, link, now)

    def _lose(self, rank: int, link: LineSocket, now: float) -> None:
        peer = self._peers[rank]
        self._drop(link)
        peer.link = None
        unheard_s = now - peer.silence.heard
        peer.silence.hear(now)
        # Lost by the network: it is silent until it comes back. Closed: its process ended.
        if peer.state.link == "open" and link.state == "ended":
            if rank not in self.failures:
                self._note_lost(self._ended, rank, replace(peer.state, silent_s=unheard_s))
            peer.state = replace(peer.state, link="closed")

    def _heed(self, rank: int, peer: _Peer, beat: Message) -> None:
        """What a beat says beside where the rank stands."""
        if "stop" in beat:
            stopping.request(str(beat["stop"])[:LONGEST_REASON])
        if beat.get("terminated") and not peer.terminated:
            peer.terminated = True
            self._note_lost(self._terminated, rank, peer.state)
        if "failed" in beat and rank not in self.failures:
            self.failures[rank] = str(beat["failed"])[:LONGEST_REASON]
            position.give_up_device_sums([rank])
            self._note_lost(self._failed, rank, peer.state)

    def _note_lost(self, lost: dict[int, RankState], rank: int, state: RankState) -> None:
        lost[rank] = state
        if self._since is None:
            self._since = time.monotonic()

    def _say_last_words(self, states: Mapping[int, RankState]) -> None:
        """The launcher may end this process in a second, long before anything can be judged."""
        if self._since is None or time.monotonic() - self._since < _GATHER_S:
            return
        hosts = self.job.hosts
        if self._terminated:
            self.speak("\n".join(terminated_words(self._terminated, hosts)))
        lines = failed_words(self._failed, self.failures, hosts) if self._failed else []
        lines += ended_words(self._ended, states, hosts) if self._ended else []
        self._terminated, self._failed, self._ended, self._since = {}, {}, {}, None
        if lines:
            self.tell_end_of(lines)

    def _drop(self, link: LineSocket) -> None:
        self._selector.unregister(link.socket)
        link.close()

    def _states(self, own: RankState) -> dict[int, RankState]:
        now = self.clock.now
        newest = max([own.step, *(peer.state.step for peer in self._peers.values())])
        others = {
            rank: peer.silence.add_to(peer.state, now, newest) for rank, peer in self._peers.items()
        }
        return {0: own, **others}

    def _stacks(self, ranks: list[int]) -> dict[int, str]:
        """Python stacks of those ranks that send theirs in time."""
        now = self.clock.now
        asked = [
            peer
            for peer in (self._peers[rank] for rank in ranks if rank != 0)
            if peer.link is not None and now - peer.silence.heard < MISSED_S
        ]
        for peer in asked:
            if peer.link is not None:
                peer.link.send({"stack?": True})
        end = time.monotonic() + 1.0 + 2 * self.job.interval_s
        while time.monotonic() < end and any(p.link and p.stack is None for p in asked):
            self._hear(0.1)
        found = {0: own_stack()} if 0 in ranks else {}
        for rank in ranks:
            stack = None if rank == 0 else self._peers[rank].stack
            if stack:
                found[rank] = stack
        return found
