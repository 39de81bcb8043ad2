"""What the watchdogs of all ranks have in common: the tick, and how a job is ended."""

import os
import selectors
import socket
import sys
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from megdet_hvd.comm import position
from megdet_hvd.job import stopping
from megdet_hvd.job.abort import end_job
from megdet_hvd.job.watch.handshake import Message
from megdet_hvd.job.watch.identity import Identity, kill
from megdet_hvd.job.watch.judge import Verdict
from megdet_hvd.job.watch.rank_state import MISSED_S, AwakeClock, OwnState, RankState
from megdet_hvd.job.watch.report import report

WRITE_S = 3.0
"""A report that can't be written (a full disk, a reader that is gone) must not keep the job."""
LET_REPORTER_END_S = 3.0
"""The rank that reports ends the job; the others help themselves if that does not suffice."""
TELL_FAILURE_S = 1.0
"""A rank that has failed waits no longer for its watchdog to tell the others."""
LONGEST_REASON = 1000
"""Characters of a request to stop that are heeded."""
_PAUSE_S = 0.1
"""Between two looks at what has come, beside the training: rank 0 hears 127 beats a second."""

_ALARM = "alarm"
_BELL = "bell"


@dataclass(frozen=True)
class WatchedJob:
    """What a watchdog knows of the job from the start."""

    rank: int
    identities: Sequence[Identity]
    """By rank."""
    limit_s: float
    secret: str
    write: Callable[[str], None]
    """Shows a message to the user."""
    exit_code: int
    at_end: Callable[[str], None] = lambda text: None
    """Given the report of a hang before the job ends."""
    dispensable: frozenset[int] = frozenset()
    """Ranks without which the others go on: the end of their processes is no hang."""

    @property
    def interval_s(self) -> float:
        """Time between two beats."""
        return min(1.0, max(self.limit_s / 4, 0.25))

    @property
    def hosts(self) -> list[str]:
        """Host names by rank."""
        return [identity.host for identity in self.identities]


class Member(ABC):
    """A thread that beats. Subclasses: rank 0's hub, and the other ranks' spokes."""

    def __init__(self, job: WatchedJob) -> None:
        self.job = job
        self.clock = AwakeClock(2 * job.interval_s)
        self.own = OwnState(job.interval_s)
        self._told: str | None = None
        """The request to stop that the others have been told of."""
        self.failures: dict[int, str] = {}
        """What other ranks told of their own failures, before they ended."""
        self.last_words = ""
        """What the user was told of other ranks that failed, or ended without a good-bye."""
        self._failure: str | None = None
        """This rank's own."""
        self._failure_told = threading.Event()
        self._stop = threading.Event()
        self._alarm = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._alarm[0], selectors.EVENT_READ, _ALARM)
        bell = stopping.bell()
        if bell is not None:
            self._selector.register(bell, selectors.EVENT_READ, _BELL)
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Leave in order: from here on nobody expects anything of this rank."""
        self._stop.set()
        with suppress(OSError):
            self._alarm[1].send(b"!")
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def fail(self, text: str) -> None:
        """Let the others know that this rank has failed and will end; waits until they are told."""
        self._failure = text[:LONGEST_REASON]
        with suppress(OSError):
            self._alarm[1].send(b"!")
        self._failure_told.wait(TELL_FAILURE_S)

    @abstractmethod
    def tick(self, now: float) -> None:
        """What is done at each beat; ``now`` by the awake clock."""

    @abstractmethod
    def part(self, message: str) -> None:
        """Say good-bye (``bye``), or that this rank can't watch any more (``blind``)."""

    @abstractmethod
    def listen(self, who: Any) -> None:
        """Take in what has come on a connection; ``who``: as it was registered."""

    def news(self) -> bool:
        """Whether the next beat should not wait."""
        failed = self._failure is not None and not self._failure_told.is_set()
        return failed or stopping.requested() != self._told

    def beat(self, own: RankState) -> Message:
        """What the others are told at each beat."""
        self._told = stopping.requested()
        message: Message = {"beat": own.as_message()}
        if self._told is not None:
            message["stop"] = self._told[:LONGEST_REASON]
        if stopping.terminated():
            message["terminated"] = True
        if self._failure is not None:
            message["failed"] = self._failure
            self._failure_told.set()
        return message

    def state_of(self, told: Any) -> RankState:
        """What another rank says of itself.

        Raises:
            ValueError, TypeError, KeyError: nonsense.
        """
        state = RankState.from_message(told)
        if any(rank >= len(self.job.identities) for rank in state.ranks):
            raise ValueError(f"ranks {state.ranks[:8]} of {len(self.job.identities)}")
        return state

    def speak(self, text: str) -> None:
        """Show it to the user, without waiting for long."""
        writer = threading.Thread(target=self.job.write, args=(text,), daemon=True)
        writer.start()
        writer.join(WRITE_S)

    def tell_end_of(self, lines: Sequence[str]) -> None:
        """Show what is said of ranks that failed or ended."""
        self.last_words = "\n".join(line.removeprefix("error: ") for line in lines)
        self.speak("\n".join(lines))

    def _hear(self, timeout_s: float) -> None:
        """Take in signals, and what has come on all connections; returns once anything has."""
        for key, _ in self._selector.select(timeout_s):
            if key.data == _BELL:
                stopping.answer_bell()
            elif key.data != _ALARM:
                self.listen(key.data)

    def _rest(self) -> None:
        """Until the next beat."""
        end = time.monotonic() + self.job.interval_s
        while not self._stop.is_set() and not self.news():
            left_s = end - time.monotonic()
            if left_s <= 0:
                return
            self._hear(left_s)
            if not self.news():
                self._stop.wait(min(_PAUSE_S, max(end - time.monotonic(), 0)))

    def _run(self) -> None:
        try:
            self._rest()
            while not self._stop.is_set():
                self.tick(self.clock.tick())
                self._rest()
            self.part("bye")
        except Exception:
            # A fault of the watchdog must not end a job that is well.
            self.job.write(
                f"watchdog of rank {self.job.rank} failed, and watches no more:\n"
                f"{traceback.format_exc()}"
            )
            self.part("blind")
        finally:
            self._selector.close()
            for end in self._alarm:
                end.close()

    def end(
        self, verdict: Verdict, states: Mapping[int, RankState], stacks: Mapping[int, str]
    ) -> None:
        """Write the report and end the job; never returns."""
        position.give_up_device_sums()
        text = report(verdict, states, self.job.hosts, stacks, self.job.exit_code)
        self.speak(text)
        at_end = threading.Thread(target=self.job.at_end, args=(text,), daemon=True)
        at_end.start()
        at_end.join(WRITE_S)
        _hush()
        self.before_end(states)
        self.kill_stopped(silent_ranks(states))
        end_job(self.job.exit_code)

    @abstractmethod
    def before_end(self, states: Mapping[int, RankState]) -> None:
        """Tell the others, where there is a way."""

    def end_quietly(self, stopped: Sequence[int]) -> None:
        """Another rank has reported; never returns."""
        position.give_up_device_sums()
        _hush()
        time.sleep(2 * self.job.interval_s)  # until the others have heard it too
        self.kill_stopped(stopped)
        time.sleep(LET_REPORTER_END_S)
        os._exit(self.job.exit_code)

    def kill_stopped(self, ranks: Sequence[int]) -> None:
        """End processes of this machine that can't end themselves."""
        own = self.job.identities[self.job.rank]
        for rank in ranks:
            kill(self.job.identities[rank], own)


def _hush() -> None:
    """No more standard error: Horovod's thread aborts loudly once another rank has gone."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def silent_ranks(states: Mapping[int, RankState]) -> list[int]:
    """Ranks that may not hear that the job ends: several beats are missing."""
    return [
        rank
        for rank, state in states.items()
        if state.link == "open" and state.silent_s >= MISSED_S
    ]


def own_stack() -> str:
    """The Python stack of the training thread, and of autograd's own threads."""
    known = {thread.ident for thread in threading.enumerate()}
    main = threading.main_thread().ident
    frames = sys._current_frames()
    chosen = [frame for ident, frame in frames.items() if ident == main or ident not in known]
    return "".join("".join(traceback.format_stack(frame)) for frame in chosen)
