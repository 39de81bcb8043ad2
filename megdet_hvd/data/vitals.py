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
class Vitals:
    """What has been done so far."""

    state: str
    """The kernel's letter: R runs, S sleeps, D waits for a disk, T is stopped."""
    work: tuple[int, int]
    """Processor time in ticks, and bytes read. As long as neither grows, nothing is done."""

    @property
    def stopped(self) -> bool:
        """Whether a signal has stopped it (SIGSTOP, a debugger)."""
        return self.state in ("T", "t")


def vitals(process: int, thread: int | None = None) -> Vitals | None:
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
    return Vitals(state, (int(user) + int(system), read))


def open_file(process: int, files: Sequence[str]) -> str | None:
    """The one of these files that a process has open; None: none, or it can't be told."""
    wanted = {os.path.realpath(file): file for file in files}
    with suppress(OSError):
        for link in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                if (target := os.readlink(link)) in wanted:
                    return wanted[target]
    return None
