"""Stop requests, in real processes: signals, the file, and a main thread that is busy."""

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

from megdet_hvd.job import stopping
from tests.ranks import ROOT


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    stopping.forget()


def test_a_signal_is_a_wish_and_the_handlers_go_back() -> None:
    before = [signal.getsignal(number) for number in stopping.SIGNALS]
    assert before[-1] == signal.default_int_handler
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


PROGRAM = """
import sys, time
from megdet_hvd.job import stopping
stopping.listen(who=sys.argv[1])
if len(sys.argv) > 2:
    stopping.stake(lambda: sys.argv[2])
print('ready')
while stopping.wanted() is None: time.sleep(0.01)
print('heard', stopping.wanted())
time.sleep(60)
"""


def started(who: str, *at_stake: str, ignore: bool = False) -> "subprocess.Popen[str]":
    command = [sys.executable, "-u", "-c", PROGRAM, who, *at_stake]
    if ignore:  # as `sh -c "command &"` does
        command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # Tests that a script has started behind ``&`` ignore it, and so would all they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert running.stdout is not None and running.stdout.readline() == "ready\n"
    return running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_only_a_second_one_ends_a_process_that_is_alone(number: signal.Signals) -> None:
    with started("", "12 iterations") as running:
        assert running.stdout is not None and running.stderr is not None
        running.send_signal(number)
        assert running.stdout.readline() == f"heard {number.name} came\n"
        running.send_signal(number)  # sent twice by a launcher
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(stopping.SECOND_TERM_S + 0.2)
        running.send_signal(number)
        assert running.wait(10) == -number
        told = running.stderr.read().splitlines()
    assert told[0].startswith(f"{number.name}: stopping after this step, with a checkpoint")
    assert told[0].endswith("killed before: 12 iterations")
    last = "interrupted, and ended at once; lost: 12 iterations"
    assert told[1:] == ([last] if number == signal.SIGINT else [])


def test_ctrl_c_with_nothing_at_stake_in_a_job_and_ignored() -> None:
    alone, in_job, ignores = started(""), started("rank 0 (n1)"), started("", ignore=True)
    for running in (alone, in_job, ignores):
        running.send_signal(signal.SIGINT)
    try:
        assert alone.wait(10) == -signal.SIGINT, "start-up and evaluation lose nothing"
        assert alone.stderr is not None and "lost: nothing" in alone.stderr.read()
        assert in_job.stdout is not None
        assert in_job.stdout.readline() == "heard SIGINT came to rank 0 (n1)\n"
        ignores.send_signal(signal.SIGUSR1)
        assert ignores.stdout is not None
        assert ignores.stdout.readline() == "heard SIGUSR1 came\n", "as nohup and shells want it"
    finally:
        for running in (alone, in_job, ignores):
            running.kill()
            running.communicate()
