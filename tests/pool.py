"""Ranks that stay up and are handed one check after another, by :func:`on_ranks`.

To start a process that knows torch and Horovod takes seconds, and most checks take less. So there
is one pool for each launcher, number of processes and environment, started when it is first asked.
A check is a function, named ``package.module:function``, that all ranks call with the same plain
arguments; it starts and stops Horovod itself, with the machines it likes. What it leaves behind in
its process is put back or makes it fail (``tests/left_behind.py``), so that no check depends on
those before it. After a check that failed, the pool is ended and started anew.

A program's start and end are not for a pool: :func:`tests.ranks.run_ranks` launches them.
"""

import atexit
import json
import math
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.ranks import (
    ROOT,
    Launcher,
    RanksHung,
    busy,
    end_family,
    launch_command,
    stacks_of,
    surroundings_of,
)

START_S = 180.0
"""For all ranks to start, on a busy machine."""
OTHERS_FAIL_WITHIN_S = 5.0
"""Once one rank has failed, for the others, which may wait for it."""
LEAVE_S = 60.0
"""For ranks that are done with their last check to end."""
MAX_PROCESSES = 16
"""Alive at once, in all pools: those not used for the longest end first."""


class CheckFailed(AssertionError):
    """A check failed on some rank; the text holds each rank's error and output."""


@dataclass(frozen=True)
class Done:
    """What became of a check, in rank order."""

    values: list[Any]
    """What the function returned."""
    outputs: list[str]
    """Standard output and error."""

    @property
    def stdout(self) -> str:
        """Of all ranks, one after another."""
        return "".join(self.outputs)


def on_ranks(
    check: str,
    np: int,
    *arguments: Any,
    launcher: Launcher = "mpirun",
    timeout_s: float = 180,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
) -> Done:
    """Call ``check`` (``package.module:function``) with ``arguments`` on ``np`` ranks together.

    ``arguments`` and what is returned travel as JSON; a path becomes a string. ``env`` is set on
    each rank for this check; Horovod keeps what it has once read, so that with variables of its own
    (HOROVOD_…) there goes a pool of its own. All ranks must return; else :class:`CheckFailed`, or
    :class:`~tests.ranks.RanksHung` with every process's stack.
    """
    told = dict(env or {})
    key = (
        launcher,
        np,
        tuple(sorted(item for item in told.items() if item[0].startswith("HOROVOD"))),
    )
    pool = _pool(key)
    try:
        limit_s = timeout_s * busy()
        return pool.ask(check, [_plain(one) for one in arguments], told, limit_s, cwd)
    except BaseException:
        _pools.pop(key, None)
        pool.kill()
        raise


def close_pools() -> None:
    """End them all, at once."""
    while _pools:
        _dismiss(_pools.popitem()[1])
    _see_off(wait=True)


_Key = tuple[Launcher, int, tuple[tuple[str, str], ...]]

_pools: dict[_Key, "_Pool"] = {}
"""The one used last stands last."""
_dismissed: list["_Pool"] = []
"""On their way out, which takes seconds: nothing waits for them but the session's end."""


def _dismiss(pool: "_Pool") -> None:
    pool.dismiss()
    _dismissed.append(pool)


def _see_off(*, wait: bool) -> None:
    """Let those go that have ended; with ``wait`` all of them. Raises where one ended badly."""
    for pool in [*_dismissed]:
        if wait or pool.running.poll() is not None or time.monotonic() > pool.leave_by:
            _dismissed.remove(pool)
            pool.see_off()


def _pool(key: _Key) -> "_Pool":
    launcher, np, settings = key
    found = _pools.pop(key, None)
    if found is None:
        while _pools and sum(pool.np for pool in _pools.values()) + np > MAX_PROCESSES:
            _dismiss(_pools.pop(next(iter(_pools))))
        _see_off(wait=False)
        found = _Pool(launcher, np, dict(settings))
    _pools[key] = found
    return found


def _plain(argument: Any) -> Any:
    return str(argument) if isinstance(argument, Path) else argument


@dataclass
class _Rank:
    """The link to one rank."""

    link: socket.socket
    number: int = -1
    unread: bytes = b""

    def lines(self) -> list[dict[str, Any]] | None:
        """What has come, without waiting for more; None: the rank has ended."""
        try:
            content = self.link.recv(1 << 20)
        except ConnectionError:
            content = b""
        if not content:
            return None
        *whole, self.unread = (self.unread + content).split(b"\n")
        return [json.loads(line) for line in whole]


@dataclass
class _Pool:
    """The ranks of one launch."""

    launcher: Launcher
    np: int
    settings: dict[str, str]
    asked: int = 0
    ranks: list[_Rank] = field(default_factory=list)
    leave_by: float = math.inf
    """When it must have ended, on the monotonic clock, once it is dismissed."""

    def __post_init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ranks-"))
        command = [*launch_command(self.launcher, self.np), *_member(self.folder / "link")]
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(str(self.folder / "link"))
            door.listen(self.np)
            with (self.folder / "launcher.txt").open("w") as said:
                self.running = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    env=surroundings_of(self.settings),
                    cwd=ROOT,
                    start_new_session=True,
                )
            self.family = psutil.Process(self.running.pid)
            try:
                self._welcome(door)
            except BaseException:
                self.kill()
                raise

    def _welcome(self, door: socket.socket) -> None:
        end = time.monotonic() + START_S
        door.settimeout(0.2)
        while len(self.ranks) < self.np:
            try:
                link, _ = door.accept()
            except TimeoutError:
                if self.running.poll() is not None:
                    raise CheckFailed(f"{self} did not start\n{self._said()}") from None
                if time.monotonic() > end:
                    raise RanksHung(f"{self} did not start\n{stacks_of(self.family)}") from None
                continue
            self.ranks.append(_Rank(link))
        for hello in self._answers([*self.ranks], START_S, START_S).values():
            assert hello is not None, f"{self} did not start\n{self._said()}"
        self.ranks.sort(key=lambda rank: rank.number)
        assert [rank.number for rank in self.ranks] == [*range(self.np)]

    def ask(
        self, check: str, arguments: Sequence[Any], env: dict[str, str], timeout_s: float, cwd: Path
    ) -> Done:
        self.asked += 1
        files = [self.folder / f"{self.asked}-{rank}.txt" for rank in range(self.np)]
        for rank, file in zip(self.ranks, files, strict=True):
            asked = {
                "check": check,
                "arguments": arguments,
                "env": env,
                "cwd": str(cwd),
                "output": str(file),
            }
            rank.link.sendall(f"{json.dumps(asked)}\n".encode())
        answers = self._answers(self.ranks, timeout_s, OTHERS_FAIL_WITHIN_S)
        outputs = [file.read_text(errors="replace") if file.exists() else "" for file in files]
        failed = any(a is None or a["error"] or a["left"] for a in answers.values())
        if failed or len(answers) < self.np:
            stacks = stacks_of(self.family) if len(answers) < self.np else ""
            told = self._told(check, answers, outputs)
            hung = len(answers) < self.np and not failed
            kind = RanksHung if hung else CheckFailed
            said = f"{check} did not end in {timeout_s} s" if hung else f"{check} failed"
            raise kind(f"{said} on {self}\n{told}\n{stacks}")
        return Done([answers[rank]["value"] for rank in range(self.np)], outputs)  # type: ignore[index]

    def _answers(
        self, ranks: Sequence[_Rank], timeout_s: float, grace_s: float
    ) -> dict[int, dict[str, Any] | None]:
        """By rank: one line of each, or None where it has ended; those that are late are missing.

        After the first bad one there are ``grace_s`` left.
        """
        found: dict[int, dict[str, Any] | None] = {}
        end = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            for rank in ranks:
                selector.register(rank.link, selectors.EVENT_READ, rank)
            while len(found) < len(ranks) and (left_s := end - time.monotonic()) > 0:
                for key, _ in selector.select(left_s):
                    rank = key.data
                    lines = rank.lines()
                    if lines == []:
                        continue
                    line = None if lines is None else lines[0]
                    if line is not None and rank.number < 0:
                        rank.number = line["rank"]
                    found[rank.number] = line
                    selector.unregister(rank.link)
                    if line is None or line.get("error"):
                        end = min(end, time.monotonic() + grace_s)
        return found

    def _told(
        self, check: str, answers: Mapping[int, dict[str, Any] | None], outputs: Sequence[str]
    ) -> str:
        texts = []
        for rank in range(self.np):
            answer = answers.get(rank)
            if rank not in answers:
                state = "has not answered"
            elif answer is None:
                state = "has ended"
            elif answer["error"]:
                state = "raised"
            elif answer["left"]:
                state = "left behind: " + "; ".join(answer["left"])
            else:
                state = "is done"
            texts.append(f"--- rank {rank} {state}\n{outputs[rank][-10000:]}")
        return "\n".join([*texts, self._said()])

    def _said(self) -> str:
        said = (self.folder / "launcher.txt").read_text(errors="replace")
        return f"--- {self.launcher}\n{said[-5000:]}" if said.strip() else ""

    def dismiss(self) -> None:
        """No more checks: each rank's program ends by itself."""
        for rank in self.ranks:
            rank.link.close()
        self.leave_by = time.monotonic() + LEAVE_S

    def see_off(self) -> None:
        """Wait until a dismissed pool has ended. Raises where it doesn't, or ends badly."""
        try:
            code = self.running.wait(max(0.0, self.leave_by - time.monotonic()))
        except subprocess.TimeoutExpired:
            stacks = stacks_of(self.family)
            self.kill()
            raise RanksHung(f"{self} did not end\n{stacks}") from None
        said = self._said()
        shutil.rmtree(self.folder)
        assert code == 0, f"{self} ended with {code}\n{said}"

    def kill(self) -> None:
        for rank in self.ranks:
            rank.link.close()
        if self.running.poll() is None:
            end_family(self.family)
        self.running.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __str__(self) -> str:
        return f"the pool of {self.np} ranks of {self.launcher}"


def _member(link: Path) -> list[str]:
    return [sys.executable, "-m", "tests.pool_rank", str(link)]


def _kill_what_is_left() -> None:
    """Where the session could not close them, an interrupted one say."""
    while _pools:
        _pools.popitem()[1].kill()
    while _dismissed:
        _dismissed.pop().kill()


atexit.register(_kill_what_is_left)
