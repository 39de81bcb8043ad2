"""Wishes to stop, in real processes: signals, the file, and a main thread that is busy."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from megdet_hvd.comm import stopping
from tests.ranks import ROOT


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    stopping.forget()


def test_a_signal_is_a_wish_and_the_handlers_go_back() -> None:
    before = [signal.getsignal(number) for number in stopping.SIGNALS]
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)  # as a driver's children inherit it
    stopping.listen(who="rank 3 (n1)")
    assert not set(stopping.SIGNALS) & signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert stopping.wanted() is None and not stopping.terminated()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert stopping.wanted() == "SIGUSR1 came to rank 3 (n1)" and not stopping.terminated()
    os.kill(os.getpid(), signal.SIGTERM)
    assert stopping.wanted() == "SIGUSR1 came to rank 3 (n1)" and stopping.terminated()
    stopping.forget()
    assert [signal.getsignal(number) for number in stopping.SIGNALS] == before
    assert stopping.wanted() is None and not stopping.terminated()
    stopping.listen()
    stopping.answer_bell()
    assert stopping.wanted() is None, "what came before counts no more"


def test_another_thread_hears_while_the_main_thread_is_in_a_c_call() -> None:
    stopping.listen()
    held = threading.Lock()
    held.acquire()
    heard: list[str | None] = []

    def watch() -> None:
        bell = stopping.bell()
        os.kill(os.getpid(), signal.SIGTERM)
        assert bell is not None and select.select([bell], [], [], 10)[0]
        stopping.answer_bell()
        heard.append(stopping.requested())
        held.release()

    thread = threading.Thread(target=watch)
    thread.start()
    assert held.acquire(timeout=20)
    thread.join()
    assert heard == ["SIGTERM came"]


def test_the_stop_file_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, clock = tmp_path / "stop", [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    stopping.listen(stop_file=file)
    assert stopping.wanted() is None
    file.write_text("time is up\n")
    assert stopping.wanted() is None, "it looks once a second"
    clock[0] += stopping.LOOK_S
    assert stopping.requested() is None
    assert stopping.wanted() == "time is up" == stopping.requested()
    file.write_text("")
    stopping.listen(stop_file=file)
    assert stopping.wanted() == f"{file} is there"


def test_only_a_second_term_ends_a_process_that_is_alone() -> None:
    program = (
        "import time\nfrom megdet_hvd.comm import stopping\nstopping.listen()\nprint('ready')\n"
        "while stopping.wanted() is None: time.sleep(0.01)\nprint('heard')\ntime.sleep(60)\n"
    )
    command = [sys.executable, "-u", "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGTERM)
        assert running.stdout.readline() == "heard\n"
        running.send_signal(signal.SIGTERM)  # sent twice by a launcher
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(stopping.SECOND_TERM_S + 0.2)
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == -signal.SIGTERM
