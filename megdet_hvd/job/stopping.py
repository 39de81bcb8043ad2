"""The stop request of this job, as this process knows of it.

It comes as SIGTERM, SIGINT (Ctrl-C) or SIGUSR1, as a file that rank 0 looks for, or from another
rank over the watchdog's side channel. Nothing here stops anything: training asks :func:`wanted`
once a step, evaluation once a batch, and all ranks agree on the step over Horovod.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""Taken as stop requests."""
LOOK_S = 1.0
"""The stop file is looked for at most so often."""
SECOND_TERM_S = 1.0
"""Launchers and batch systems may send the first one twice, and programs around this one pass on a
Ctrl-C that it has had from the terminal already."""
_ENDING = (signal.SIGTERM, signal.SIGINT)
"""A second one of these ends a process that is alone."""


class StopRequested(Exception):
    """Work was broken off because somebody wants the job to stop; all ranks raise it together."""


@dataclass
class _StopRequests:
    """What this process knows."""

    reason: str | None = None
    terminated_s: float | None = None
    """``time.monotonic()`` of the first SIGTERM here; None: there was none."""
    handled_s: float | None = None
    """Of the first that could end this process, as the main thread came to it."""
    at_stake: Callable[[], str] | None = None
    who: str = ""
    alone: bool = True
    stop_file: Path | None = None
    looked_s: float = -LOOK_S
    before: dict[int, Any] = field(default_factory=dict)
    wakeup_before: int = -1


_requests = _StopRequests()
_bell: tuple[socket.socket, socket.socket] | None = None
"""Rung by the kernel at a signal. Never closed: a watchdog may still be listening to it."""


def listen(*, who: str = "", stop_file: Path | None = None) -> None:
    """From now on take SIGTERM, SIGINT and SIGUSR1 as stop requests. For entry points.

    Alone, and before anything is at stake (:func:`stake`), SIGINT ends the process at once. A
    SIGINT that is ignored stays so: shells start programs in the background that way.

    Outside the main thread Python allows no handlers: then only the file and other ranks count.

    Args:
        who: names this process in reasons, ``rank 3 (n1)``; empty: it is alone, and a second
            SIGTERM or SIGINT ends it at once. In a job the launcher and the watchdog see to that.
        stop_file: once it is there the job shall stop, its content says why. Rank 0 only.
    """
    global _requests, _bell
    _requests = _StopRequests(who=who, alone=not who, stop_file=stop_file)
    if threading.current_thread() is not threading.main_thread():
        return
    if _bell is None:
        _bell = socket.socketpair()
        for end in _bell:
            end.setblocking(False)
    # Python's own handlers wait until the main thread leaves its C call, a Horovod wait say.
    _requests.wakeup_before = signal.set_wakeup_fd(_bell[1].fileno(), warn_on_full_buffer=False)
    for number in SIGNALS:
        if number == signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN:
            continue
        _requests.before[number] = signal.signal(number, _handle)
        # A signal may meet any thread, those of MPI, Gloo and NCCL too: their calls go on.
        signal.siginterrupt(number, False)
    # A launcher may have been started with them blocked, and the mask is inherited.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def forget() -> None:
    """Put the handlers back that were there before :func:`listen`, and drop every request."""
    global _requests
    before, _requests = _requests, _StopRequests()
    if before.before and threading.current_thread() is threading.main_thread():
        for number, handler in before.before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(before.wakeup_before)
        answer_bell()  # what came before is of no interest to the next to listen
        _requests = _StopRequests()


def stake(lost: Callable[[], str] | None) -> None:
    """From now on an end before the next checkpoint loses what ``lost`` says; None: nothing.

    ``lost`` is asked in a signal's handler: it must neither wait nor raise.
    """
    _requests.at_stake = lost


def request(reason: str) -> None:
    """Somebody wants the job to stop; the first reason stays."""
    if _requests.reason is None:
        _requests.reason = reason


def requested() -> str | None:
    """As :func:`wanted`, without a look for the file: for a thread that no disk may hold up."""
    return _requests.reason


def wanted() -> str | None:
    """Why the job shall stop, as far as this process knows; None: it shall go on.

    Other ranks may know more or less: only what they agree on may decide what they do together.
    """
    requests = _requests
    if requests.reason is None and requests.stop_file is not None:
        now = time.monotonic()
        if now - requests.looked_s >= LOOK_S:
            requests.looked_s = now
            _look(requests.stop_file)
    return requests.reason


def terminated() -> bool:
    """Whether SIGTERM came to this process."""
    return _requests.terminated_s is not None


def bell() -> socket.socket | None:
    """Readable once a signal has come; None: nobody listens to signals."""
    return None if _bell is None else _bell[0]


def answer_bell() -> None:
    """Take note of the signals that have come. Any thread may call it."""
    if _bell is None:
        return
    with suppress(BlockingIOError):
        while numbers := _bell[0].recv(4096):
            for number in numbers:
                if number in SIGNALS:
                    _note(number)


def _look(file: Path) -> None:
    try:
        os.stat(file)
    except OSError:
        return
    with suppress(OSError, UnicodeDecodeError):
        request(file.read_text(encoding="utf-8").strip() or f"{file} is there")
    request(f"{file} is there")


def _note(number: int) -> None:
    name = signal.Signals(number).name
    first = _requests.reason is None
    request(f"{name} came to {_requests.who}" if _requests.who else f"{name} came")
    if number == signal.SIGTERM and _requests.terminated_s is None:
        _requests.terminated_s = time.monotonic()
    if first and _requests.at_stake is not None:
        again = "; a second Ctrl-C ends it at once" if number == signal.SIGINT else ""
        _say(
            f"{name}: stopping after this step, with a checkpoint{again}. Lost if the process is "
            f"killed before: {_requests.at_stake()}"
        )


def _say(text: str) -> None:
    """In a handler: no lock may be waited for."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode(errors="backslashreplace"))


def _handle(number: int, frame: FrameType | None) -> None:
    """Runs in the main thread, between two steps of Python."""
    del frame
    _note(number)
    if number not in _ENDING:
        return
    first, now = _requests.handled_s, time.monotonic()
    if first is None:
        _requests.handled_s = now
    again = first is not None and now - first > SECOND_TERM_S
    nothing_to_save = number == signal.SIGINT and _requests.at_stake is None
    if _requests.alone and (again or nothing_to_save):
        if number == signal.SIGINT:
            lost = "nothing" if _requests.at_stake is None else _requests.at_stake()
            _say(f"interrupted, and ended at once; lost: {lost}")
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
