"""Saying what is done and how long it takes, and running commands into a log."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from install.failure import failure_text
from install.problem import SetupProblem

SIGN_OF_LIFE_S = 30


def say(text: str) -> None:
    """One line for the user, at once."""
    print(f"[set-up] {text}", flush=True)


def duration(seconds: float) -> str:
    """``48 s`` or ``3 min 20 s``."""
    whole = round(seconds)
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60} s"


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say what begins, and when it is done, how long it took."""
    say(f"{text} …")
    start = time.monotonic()
    yield
    say(f"  done in {duration(time.monotonic() - start)}")


def progress(log: Path) -> str:
    """Where a command stands: the last percentage in its log, else its last line, shortened."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 100_000))
        text = file.read().decode(errors="replace").replace("\r", "\n")
    if percentages := re.findall(r"^\s*\[\s*(\d+%)\]", text, re.MULTILINE):
        return str(percentages[-1])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:60] if lines else "no output yet"


def run_logged(
    what: str,
    command: Iterable[str | Path],
    log: Path,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a command with its output in ``log`` (begun anew); returns that output.

    A sign of life is printed every half minute. The command and its children are ended when
    set-up is interrupted.

    Raises:
        SetupProblem: the command failed; the text holds the reason in a few lines.
    """
    words = [str(word) for word in command]
    log.parent.mkdir(parents=True, exist_ok=True)
    process: subprocess.Popen[bytes] | None = None
    with log.open("wb") as output:
        start = time.monotonic()
        try:
            with _signals_held():
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=None if environ is None else dict(environ),
                    cwd=cwd,
                )
            while True:
                try:
                    code = process.wait(SIGN_OF_LIFE_S)
                    break
                except subprocess.TimeoutExpired:
                    passed = duration(time.monotonic() - start)
                    say(f"  still at it after {passed}: {progress(log)}")
        except BaseException as error:
            if process is not None:
                _end(process)
            elif isinstance(error, OSError):
                raise SetupProblem(f"{what} failed: cannot run {words[0]} ({error})") from error
            raise
    text = log.read_text(encoding="utf-8", errors="replace")
    if code != 0:
        raise SetupProblem(failure_text(what, code, text, log, words))
    return text


@contextmanager
def _signals_held() -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM wait: of a command that is just being started nobody knows yet."""
    came: list[int] = []

    def note(number: int, _: object) -> None:
        came.append(number)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # What is ignored stays so, for the command, too.
    held = {n: handler for n, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    if threading.current_thread() is not threading.main_thread():
        held = {}  # it gets no signals
    for one in held:
        signal.signal(one, note)
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def descendants(pid: int) -> list[int]:
    """Processes below ``pid``, parents first, as the system lists them."""
    found: list[int] = []
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(c) for t in threads for c in (t / "children").read_text().split()]
    except OSError:
        return found
    for child in children:
        found += [child, *descendants(child)]
    return found


def _end(process: "subprocess.Popen[bytes]") -> None:
    for pid in [process.pid, *descendants(process.pid)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def warn(text: str) -> None:
    """A line the user should not miss."""
    print(f"[set-up] NOTE: {text}", file=sys.stderr, flush=True)
