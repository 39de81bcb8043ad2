"""Whether a process or thread of this machine gets anywhere, as its kernel sees it.

Whoever waits for it learns nothing from the waiting: it may be decoding a large picture, or be
stopped, or stand before a file server that does not answer.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Activity:
    """What has been done so far."""

    state: str
    """The kernel's letter: R runs, S sleeps, D waits for a disk, T is stopped."""
    work: tuple[int, int]
    """Processor time in ticks, and bytes read. As long as neither grows, nothing is done."""

    @property
    def stopped(self) -> bool:
        """Whether a signal has stopped it (SIGSTOP, a debugger)."""
        return self.state in ("T", "t")


def activity(process: int, thread: int | None = None) -> Activity | None:
    """Of a process, or of one thread of it; None: it is gone, or can't be looked at."""
    folder = Path(f"/proc/{process}")
    if thread is not None:
        folder /= f"task/{thread}"
    try:
        text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *numbers = text.rpartition(")")[2].split()  # a program's name may hold brackets
    user, system = numbers[10:12]
    read = 0
    with suppress(OSError, ValueError, IndexError):  # some kernels keep no count, or keep it secret
        read = int((folder / "io").read_text(encoding="utf-8").split()[1])
    return Activity(state, (int(user) + int(system), read))


class Idleness:
    """How long somebody has done nothing, as one who looks every now and then sees it.

    A batch system may stop a whole job and let it go on an hour later. Then nobody has been idle
    for an hour: between two looks, no more than twice the usual time counts.
    """

    def __init__(self, look_s: float) -> None:
        """``look_s``: the usual time between two looks."""
        self._look_s = look_s
        self._before: tuple[Activity | None, float] | None = None
        self._idle_s = 0.0

    def seconds(self, now: Activity | None, time_s: float) -> float:
        """Without any work done, by now. None, which tells nothing, is no sign of idleness."""
        before, self._before = self._before, (now, time_s)
        if now is None or before is None or before[0] is None or before[0].work != now.work:
            self._idle_s = 0.0
        else:
            self._idle_s += min(time_s - before[1], 2 * self._look_s)
        return self._idle_s


def open_file(process: int, files: Sequence[str]) -> str | None:
    """The one of these files that a process has open; None: none, or it can't be told."""
    wanted = {os.path.realpath(file): file for file in files}
    with suppress(OSError):
        for link in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                if (target := os.readlink(link)) in wanted:
                    return wanted[target]
    return None
