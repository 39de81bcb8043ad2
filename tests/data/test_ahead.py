"""A loader that dies, stops, hangs or finds no shared memory: nobody waits for it for ever."""

import logging
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing import process, util
from pathlib import Path
from typing import Any

import pytest
import torch

from megdet_hvd.data import (
    ahead,
    loader_process,
    loader_start,
    loader_thread,
    shared_memory,
    workers,
)
from megdet_hvd.data.activity import Activity, Idleness, activity, open_file
from megdet_hvd.data.ahead import load_ahead
from megdet_hvd.data.shared_memory import Sender
from megdet_hvd.data.workers import server_process, start_server
from megdet_hvd.errors import RunError, StorageError, UserError

from .slow_steps import FAILS_AT, Steps

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (ahead, loader_start, loader_thread):
        monkeypatch.setattr(module, "LOOK_S", 0.05)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.getLogger("megdet_hvd")
    before, logger.propagate = logger.propagate, True
    yield caplog
    logger.propagate = before


def numbers_until_error(steps: Iterator[torch.Tensor], kind: type[Exception]) -> tuple[int, str]:
    """How many steps came, each the right one, before the error; and its text."""
    came = 0
    with pytest.raises(kind) as raised:
        for came, step in enumerate(steps, start=1):
            assert step.tolist() == [came - 1] * 1000
    return came, str(raised.value)


@pytest.mark.parametrize("count", [0, 2])
def test_an_error_of_the_loader_is_the_callers(count: int) -> None:
    came, text = numbers_until_error(load_ahead(Steps("refuses"), range(6), count), UserError)
    assert (came, text) == (FAILS_AT, "no such thing")
    came, text = numbers_until_error(load_ahead(Steps("fails"), range(6), count), RuntimeError)
    assert came == FAILS_AT and "KeyError: 'this one'" in text and "slow_steps.py" in text


@pytest.mark.parametrize(
    ("way", "kind", "words"),
    [
        ("killed", RunError, ["SIGKILL", "memory", "pictures/", "data.workers"]),
        ("leaves", RunError, ["exit code 7", "pictures/"]),
        ("stopped", RunError, ["SIGSTOP", "SIGCONT"]),
        ("hangs", StorageError, ["has done nothing", "pictures/3.jpg", "watchdog.seconds=0.3"]),
    ],
)
def test_a_process_that_brings_nothing_ends_the_wait(
    way: str, kind: type[Exception], words: Sequence[str], said: pytest.LogCaptureFixture
) -> None:
    steps = load_ahead(Steps(way), range(6), 2, limit_s=0.3)
    began = time.monotonic()
    came, text = numbers_until_error(steps, kind)
    # The dead can't hand over the shared memory of what they had loaded before.
    assert came == FAILS_AT if way == "hangs" else came <= FAILS_AT
    assert all(word in text for word in ["the loader process", *words]), text
    assert time.monotonic() - began < 20
    warned = "has done nothing" in said.text
    assert warned == (way == "hangs"), "said at the first limit, before the wait ends"
    assert list(steps) == [], "after an error there is nothing more"


def test_a_stopped_server_of_loader_processes_ends_the_wait() -> None:
    start_server()
    server = server_process()
    assert server is not None
    os.kill(server, signal.SIGSTOP)
    try:
        with pytest.raises(RunError, match=rf"server .*process {server}, is stopped .*SIGCONT"):
            load_ahead(Steps("killed"), range(2), 2, limit_s=0.5)
    finally:
        os.kill(server, signal.SIGCONT)
    assert len(list(load_ahead(Steps("killed"), range(2), 2, limit_s=30))) == 2


def test_a_thread_that_hangs_ends_the_wait_and_one_that_works_does_not() -> None:
    came, text = numbers_until_error(
        load_ahead(Steps("hangs"), range(6), 0, limit_s=0.1), StorageError
    )
    assert came == FAILS_AT and "the loader thread has done nothing" in text
    for count in (0, 1):  # it computes for three times as long as it might do nothing
        assert len(list(load_ahead(Steps("busy"), range(5), count, limit_s=0.1))) == 5


def test_a_program_may_end_while_its_loader_is_within_torchs_code() -> None:
    script = f"""if 1:
        from megdet_hvd.data.ahead import load_ahead
        from tests.data.slow_steps import Steps
        steps = load_ahead(Steps("computes"), range(6), 0)
        for _ in range({FAILS_AT}):
            next(steps)
        print("ends", flush=True)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr


def test_without_shared_memory_pictures_go_through_the_pipe(
    monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    def full(size: int) -> Any:
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    def laid(sender: Sender, number: int) -> torch.Tensor:
        sender.begin()
        return sender.room(50_000).fill_(number)

    monkeypatch.setattr(loader_process, "_said", threading.Lock())
    here, there = multiprocessing.Pipe(duplex=False)
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=loader_process._listen, args=(here, done), daemon=True).start()
    with monkeypatch.context() as patched:
        patched.setattr(shared_memory, "_shared", full)
        for number in range(3):
            loader_process._hand_over(laid(sender := Sender(2), number), sender, there)
    found = [done.get(timeout=10) for _ in range(3)]
    assert [step.tolist() for step in found] == [[number] * 50_000 for number in range(3)]
    assert said.text.count("/dev/shm") == 1 and "data.workers=0" in said.text, "said once"
    loader_process._hand_over(
        lambda: None, sender, there
    )  # what can't be handed over is an error, not a silence
    assert "pickle" in str(done.get(timeout=10).as_error("the loader"))
    there.close()
    assert done.get(timeout=10) is None


def test_where_no_process_can_be_started_a_thread_loads(
    monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    def no_process(*_: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(loader_start, "LoaderProcess", no_process)
    steps = list(load_ahead(Steps("well"), range(4), 2))
    assert [int(step[0]) for step in steps] == [0, 1, 2, 3]
    assert "can't be started" in said.text and "a thread loads" in said.text


def test_activity_of_a_thread_and_of_nobody(tmp_path: Path) -> None:
    own = activity(os.getpid(), threading.get_native_id())
    assert own is not None and own.state == "R" and not own.stopped
    sum(range(3_000_000))
    later = activity(os.getpid(), threading.get_native_id())
    assert later is not None and later.work > own.work
    assert activity(2**22 + 5) is None
    file = tmp_path / "a.jpg"
    file.write_bytes(b"x")
    names = [str(tmp_path / "b.jpg"), str(file)]
    assert open_file(os.getpid(), names) is None
    with file.open():
        assert open_file(os.getpid(), names) == str(file)


def test_a_job_that_was_suspended_has_not_been_idle() -> None:
    idle, still, later = Idleness(1.0), Activity("S", (5, 100)), Activity("R", (6, 100))
    assert [idle.seconds(still, time_s) for time_s in (0, 1, 2)] == [0, 1, 2]
    assert idle.seconds(Activity("T", (5, 100)), 3602) == 4, "an hour stopped, with all others"
    assert idle.seconds(later, 3603) == 0, "it works"
    assert idle.seconds(later, 3604) == 1
    assert idle.seconds(None, 3605) == 0 and idle.seconds(later, 3606) == 0, "nothing is known"


def test_a_long_temporary_folder_does_not_lengthen_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 95)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    config = process.current_process()._config  # type: ignore[attr-defined]
    monkeypatch.delitem(config, "tempdir", raising=False)
    workers._keep_addresses_short()
    folder = Path(util.get_temp_dir())
    assert len(str(folder)) < 70 and folder.stat().st_mode & 0o077 == 0
    assert tempfile.gettempdir() == str(long), "for everything else it stays"
