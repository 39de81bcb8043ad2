"""Real processes on one folder, and owners on machines that only a record tells of."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from megdet_hvd.errors import RunError, StorageError, UserError
from megdet_hvd.run_lock import lock, slurm
from megdet_hvd.run_lock.lock import BEAT_S, LEASE_S, LOCK, RECORD, RunLock, take
from megdet_hvd.run_lock.owner import (
    Owner,
    beat_line,
    own_identity,
    process_runs,
    read_record,
    record_text,
)
from megdet_hvd.run_lock.slurm import FORGOTTEN, JobState, job_state, parse_state
from tests.ranks import ROOT


@contextmanager
def holder(
    folder: Path, ending: str = "wait", lease_s: float = 60.0
) -> "Iterator[subprocess.Popen[str]]":
    words = [sys.executable, "-m", "tests.run_lock.holder", str(folder), ending, str(lease_s)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def left(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.startswith(".lock"))


def take_at_once(folder: Path, environ: dict[str, str] | None = None) -> RunLock:
    """Without a second's wait: any look at somebody's heartbeat is a failure."""

    def pause(_: float) -> None:
        raise AssertionError("it waits")

    return take(folder, say=pytest.fail, pause=pause, environ=environ or {})


class Clock:
    """Time that passes only in pauses, and what happens in the meantime."""

    def __init__(self) -> None:
        self.now = 0.0
        self.said: list[str] = []

    def take(self, folder: Path, environ: dict[str, str] | None = None, **more: object) -> RunLock:
        return take(
            folder,
            say=self.said.append,
            environ=environ or {},
            clock=lambda: self.now,
            pause=self.pause,
        )

    def pause(self, seconds: float) -> None:
        self.now += seconds


def elsewhere(folder: Path, **facts: object) -> Owner:
    """Somebody on another machine holds the folder."""
    own = replace(own_identity({}), host="n7", boot="other", pid=77, nonce="theirs")
    owner = replace(own, **facts)  # type: ignore[arg-type]
    (folder / RECORD).write_text(record_text(owner))
    return owner


def test_a_second_writer_is_told_who_the_first_is_and_a_dead_one_is_in_nobodys_way(
    tmp_path: Path,
) -> None:
    with holder(tmp_path) as first:
        assert line(first).startswith("holds ")
        with pytest.raises(UserError) as raised:
            take_at_once(tmp_path)
        told = str(raised.value)
        assert f"process {first.pid} on {os.uname().nodename}, since 20" in told
        assert str(tmp_path) in told and f"kill {first.pid} on " in told
        with holder(tmp_path, "return") as second:
            assert line(second) == f"UserError {told}" and second.wait(20) == 2
        first.send_signal(signal.SIGKILL)
        first.wait(20)
        assert left(tmp_path) == [LOCK, RECORD], "it could not tidy up"
        held = take_at_once(tmp_path)
        held.check()
        held.release()
        held.release()
    assert left(tmp_path) == []


@pytest.mark.parametrize(("ending", "code"), [("return", 0), ("raise", 1), ("exit", 5)])
def test_every_way_to_end_lets_the_folder_go(tmp_path: Path, ending: str, code: int) -> None:
    with holder(tmp_path, ending) as process:
        assert process.wait(30) == code
    assert left(tmp_path) == []


def test_one_that_was_stopped_and_taken_over_ends_itself(tmp_path: Path) -> None:
    with holder(tmp_path, lease_s=2.0) as first:
        assert line(first).startswith("holds ")
        first.send_signal(signal.SIGSTOP)
        with holder(tmp_path, lease_s=2.0) as second:
            waited = line(second)
            assert waited.startswith("said ") and "gives no sign" in waited
            taken = line(second)
            assert f"process {first.pid} on" in taken and "heartbeat has stood still for" in taken
            assert line(second) == f"holds {second.pid}"
            first.send_signal(signal.SIGCONT)
            ended = line(first)
            assert first.wait(20) == 3
            assert ended.startswith("RunError ") and f"process {second.pid} on" in ended
            assert "has taken over this run" in ended and "writes nothing more" in ended
            time.sleep(0.2)
            assert second.poll() is None, "the new owner goes on"
            assert left(tmp_path) == [LOCK, RECORD], "the former owner left them alone"
            writers = (tmp_path / "written").read_text().split()
            assert writers.index(str(second.pid)) == writers.count(str(first.pid)), (
                "not one line of the former owner's after the first of the new one's"
            )


def test_writers_that_come_together_are_let_in_one_at_a_time(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.run_lock.holder", str(tmp_path), "wait", "60"]
    started = [
        subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    try:
        found = [line(process).split()[0] for process in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert sorted(found) == ["UserError"] * 3 + ["holds"]


def test_one_that_dies_while_the_folder_changes_hands(tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from megdet_hvd.run_lock import lock
with lock._guarded(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(60)
"""
    words = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert line(process) == "in"
        began = time.monotonic()
        process.kill()
    take_at_once(tmp_path).release()
    assert time.monotonic() - began < 10 and left(tmp_path) == []


def test_children_neither_keep_the_lock_nor_let_it_go(tmp_path: Path) -> None:
    """A forked process has the parent's files; one that is started anew must have none of them."""
    program = """
import os, subprocess, sys, time
from pathlib import Path
from megdet_hvd.run_lock.lock import take
held = take(Path(sys.argv[1]), say=print)
heard, tells = os.pipe()
child = os.fork()
if not child:
    held.release()  # as a finally in the child would
    os.write(tells, b"x")
    time.sleep(60)
os.read(heard, 1)
started = subprocess.Popen(["sleep", "60"], close_fds=False)
print(child, started.pid, flush=True)
time.sleep(60)
"""
    words = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        children = [int(word) for word in line(parent).split()]
        try:
            with pytest.raises(UserError, match=f"process {parent.pid} on"):
                take_at_once(tmp_path)
            # As if its process could not be seen, so that the lock itself decides.
            record = read_record(tmp_path / RECORD)
            assert record is not None and record.owner is not None and record.owner.native
            hidden = replace(record.owner, pid_space="of another container")
            parent.send_signal(signal.SIGSTOP)
            (tmp_path / RECORD).write_text(record_text(hidden))
            with pytest.raises(AssertionError, match="it waits"):
                take_at_once(tmp_path)
            parent.kill()
            parent.wait(20)
            for pid in children:
                os.kill(pid, 0)  # both are there
            take_at_once(tmp_path).release()
        finally:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
    assert left(tmp_path) == []


def _worker(folder: str, answers: "multiprocessing.Queue[str]") -> None:
    try:
        take_at_once(Path(folder)).release()
        answers.put("took it")
    except UserError:
        answers.put("refused")


def test_loader_processes_leave_it_alone(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    answers = context.Queue()
    held = take_at_once(tmp_path)
    process = context.Process(target=_worker, args=(str(tmp_path), answers))
    process.start()
    assert answers.get(timeout=60) == "refused"
    process.join()
    held.check()
    held.release()
    assert left(tmp_path) == []


def test_a_heartbeat_that_moves_is_somebody_at_work(tmp_path: Path) -> None:
    owner = elsewhere(tmp_path)
    clock = Clock()

    def beat(seconds: float) -> None:
        clock.now += seconds
        number = int(clock.now // BEAT_S)
        (tmp_path / RECORD).write_text(record_text(owner)[: -len(beat_line(0))] + beat_line(number))

    clock.pause = beat  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"process 77 on n7, since .* works in this run"):
        clock.take(tmp_path)
    assert clock.now <= 2 * BEAT_S and clock.said == []
    with pytest.raises(UserError, match=r"Slurm job 5, since .*scancel --batch --signal=USR2 5"):
        owner = elsewhere(tmp_path, job=5)
        clock.take(tmp_path)
    # The number of an array's last member is the whole array's.
    with pytest.raises(UserError, match=r"Slurm job 5_2, since .*--signal=USR2 5_2"):
        owner = elsewhere(tmp_path, job=5, member="5_2")
        clock.take(tmp_path)
    array = {"SLURM_JOB_ID": "5", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"}
    assert own_identity(array).slurm_id == "5_2"
    assert own_identity({"SLURM_JOB_ID": "5"}).slurm_id == "5"
    assert "member" not in record_text(own_identity({})), "what former versions can read"


def test_a_heartbeat_that_stands_still_for_a_lease_is_a_lost_machines(tmp_path: Path) -> None:
    elsewhere(tmp_path)
    clock = Clock()
    held = clock.take(tmp_path)
    assert LEASE_S < clock.now < LEASE_S + 5
    assert len(clock.said) == 2 and "gives no sign; waiting up to 90 s" in clock.said[0]
    assert "process 77 on n7" in clock.said[1] and "heartbeat has stood still" in clock.said[1]
    held.check()
    held.release()


def test_a_lock_that_a_lost_client_left_on_the_server_is_replaced(tmp_path: Path) -> None:
    elsewhere(tmp_path)
    with (tmp_path / LOCK).open("w") as stuck:
        fcntl.flock(stuck, fcntl.LOCK_EX)
        held = Clock().take(tmp_path)
        assert held.owner.native
        with (tmp_path / LOCK).open() as again, pytest.raises(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.release()
    assert left(tmp_path) == []


def test_nobodys_clock_counts_but_ones_own_and_no_time_in_which_storage_was_silent(
    tmp_path: Path,
) -> None:
    owner = elsewhere(tmp_path, since=time.time() + 1e6)
    clock = Clock()
    looks = 0

    def pause(seconds: float) -> None:
        nonlocal looks
        looks += 1
        # Each look hangs for half a minute, as on a server that restarts, and in the end it beats.
        clock.now += seconds + 30
        if looks == 20:
            text = record_text(owner)[: -len(beat_line(0))] + beat_line(1)
            (tmp_path / RECORD).write_text(text)

    clock.pause = pause  # type: ignore[method-assign]
    with pytest.raises(UserError, match="works in this run"):
        clock.take(tmp_path)
    assert clock.now > 5 * LEASE_S and looks == 20


def test_a_reboot_or_a_record_that_is_no_record_ends_after_a_lease_at_most(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text("not a record\n")
    clock = Clock()
    clock.take(tmp_path).release()
    assert clock.now > LEASE_S
    assert "somebody unknown" in clock.said[1]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_of_the_file_system_the_record_does(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", no_locks)
    held = take_at_once(tmp_path)
    assert not held.owner.native
    with pytest.raises(UserError, match="works in this run"):
        take_at_once(tmp_path)
    dead = replace(held.owner, start="1")
    (tmp_path / RECORD).write_text(record_text(dead))
    other = take_at_once(tmp_path)
    held._beat()
    with pytest.raises(RunError, match="has taken over this run"):
        held.check()
    held.release()
    other.check()
    other.release()
    # One whose process can't be seen, and that has no lock which could have ended.
    hidden = replace(dead, pid_space="of another container")
    (tmp_path / RECORD).write_text(record_text(hidden))
    clock = Clock()
    clock.take(tmp_path).release()
    assert clock.now > LEASE_S


def test_an_owner_that_slept_looks_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heartbeat has not come to run yet: the main thread finds out by itself."""
    held = take_at_once(tmp_path)
    elsewhere(tmp_path)
    held.check()  # within the lease nobody can have come
    true = lock._clock()
    monkeypatch.setattr(lock, "_clock", lambda: true + LEASE_S)
    with pytest.raises(RunError, match="process 77 on n7"):
        held.check()
    held.release()
    assert left(tmp_path) == [LOCK, RECORD]


def test_a_folder_that_was_moved_away_ends_its_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    held = take_at_once(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    held._beat()
    with pytest.raises(RunError, match=r"\.lock\.owner\) is gone"):
        held.check()
    held.release()


def test_a_failing_storage_is_not_a_lost_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = take_at_once(tmp_path)

    def stale(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", stale)
        patched.setattr(lock, "read_record", stale)
        held._beat()
        held.check()
    sure = held._sure_at
    held._beat()
    assert held._sure_at > sure
    held.release()


ME = {"SLURM_JOB_ID": "42", "SLURM_CLUSTER_NAME": "c1"}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[int, JobState | None]:
    """What Slurm knows of jobs; those that are not in it it has forgotten."""
    known: dict[int, JobState | None] = {}
    monkeypatch.setattr(slurm, "has_slurm", lambda: True)
    monkeypatch.setattr(slurm, "job_state", lambda job: known.get(job, FORGOTTEN))
    return known


@pytest.mark.parametrize("can_ask", [True, False])
def test_a_requeued_job_has_its_run_at_once(
    tmp_path: Path,
    answers: dict[int, JobState | None],
    monkeypatch: pytest.MonkeyPatch,
    can_ask: bool,
) -> None:
    answers[42] = None  # it is not even asked
    monkeypatch.setattr(slurm, "has_slurm", lambda: can_ask)  # not from inside a container
    elsewhere(tmp_path, job=42, cluster="c1")
    held = take_at_once(tmp_path, {**ME, "SLURM_RESTART_COUNT": "1"})
    assert (held.owner.job, held.owner.restart) == (42, 1)
    elsewhere(tmp_path, job=42, restart=2, cluster="c1")  # a later start, by a node long lost
    with pytest.raises(UserError, match="Slurm job 42"):
        take_at_once(tmp_path, {**ME, "SLURM_RESTART_COUNT": "1"})


@pytest.mark.parametrize(
    "state",
    [
        FORGOTTEN,
        *(JobState(name, 0, os.getuid()) for name in ("FAILED", "TIMEOUT", "NODE_FAIL")),
        JobState("RUNNING", 1, os.getuid()),  # its next start is not the owner
        JobState("RUNNING", 0, os.getuid() + 1),  # the number is another user's now
    ],
)
def test_a_job_that_slurm_says_has_ended_is_gone(
    tmp_path: Path, answers: dict[int, JobState | None], state: JobState
) -> None:
    elsewhere(tmp_path, job=7, cluster="c1")
    answers[7] = state
    take_at_once(tmp_path, ME).release()


def test_a_job_that_may_be_there_is_not_gone(
    tmp_path: Path, answers: dict[int, JobState | None]
) -> None:
    elsewhere(tmp_path, job=7, cluster="c1")
    answers[7] = JobState("SUSPENDED", 0, os.getuid())
    with pytest.raises(UserError, match="Slurm job 7"):
        take_at_once(tmp_path, ME)
    answers[7] = JobState("COMPLETING", 0, os.getuid())
    with pytest.raises(AssertionError, match="it waits"):
        take_at_once(tmp_path, ME)
    clock = Clock()
    answers[7] = None
    with pytest.raises(StorageError, match=r"process 77 .*Slurm does not say.*start again"):
        clock.take(tmp_path, ME)
    assert clock.now > LEASE_S, "it was given a lease's time to give a sign"
    owner = elsewhere(tmp_path, job=7, cluster="another")  # its numbers say nothing here
    clock.take(tmp_path, ME).release()
    assert len(clock.said) >= 2 and str(owner) in clock.said[-1]


def test_where_slurm_comes_back_while_one_waits(
    tmp_path: Path, answers: dict[int, JobState | None]
) -> None:
    elsewhere(tmp_path, job=7, cluster="c1")
    answers[7] = None
    clock = Clock()

    def pause(seconds: float) -> None:
        clock.now += seconds
        if clock.now > 40:
            answers[7] = FORGOTTEN

    clock.pause = pause  # type: ignore[method-assign]
    clock.take(tmp_path, ME).release()
    assert 40 < clock.now < LEASE_S


def test_two_steps_of_one_job_are_told_apart_by_their_heartbeats(
    tmp_path: Path, answers: dict[int, JobState | None]
) -> None:
    answers[42] = FORGOTTEN  # not asked: it is our own
    elsewhere(tmp_path, job=42, cluster="c1")
    clock = Clock()
    clock.take(tmp_path, ME).release()
    assert clock.now > LEASE_S


SCONTROL = """\
JobId=7 JobName=a JobState=FAILED
   UserId=me(1000) GroupId=g(1)
   JobState=RUNNING Reason=None
   Requeue=1 Restarts=3 BatchFlag=1
   Command=/a b/job.sbatch Restarts=9
"""


def test_what_scontrol_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_state(SCONTROL, 7) == JobState("RUNNING", 3, 1000)
    assert parse_state("", 7) is None and parse_state(SCONTROL, 8) is None
    found = JobState("RUNNING", 3, 1000)
    assert not found.has_left(3, 1000) and found.has_left(2, 1000) and found.has_left(3, 1001)
    assert not JobState("COMPLETING", 0, 1000).has_left(0, 1000)
    scontrol = tmp_path / "scontrol"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for text, code, right in (
        (f"echo '{SCONTROL.strip()}'", 0, found),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2", 1, FORGOTTEN),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2", 1, None),
        ("echo", 0, None),
    ):
        scontrol.write_text(f"#!/bin/sh\n{text}\nexit {code}\n")
        scontrol.chmod(0o755)
        assert job_state(7) == right, text


def test_a_process_is_known_by_more_than_its_number() -> None:
    own = own_identity({})
    assert process_runs(own, own) is True
    assert process_runs(replace(own, start="1"), own) is False
    assert process_runs(replace(own, boot="other"), own) is None
    assert process_runs(replace(own, pid_space="other"), own) is None
    with subprocess.Popen(["sleep", "60"]) as process:
        start = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
        other = replace(own, pid=process.pid, start=start)
        assert process_runs(other, own) is True
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        assert process_runs(other, own) is None, "it may have been taken over meanwhile"
        process.kill()
        time.sleep(0.1)
        assert process_runs(other, own) is False, "a zombie holds nothing"


@pytest.mark.parametrize(
    "values",
    ["[]", "{}", "null", '{"nonce": 1}', "1" * 5000, "[" * 100000, '{"pid": "x"}', "\udcff"],
)
def test_a_foreign_record_is_somebody_unknown(tmp_path: Path, values: str) -> None:
    (tmp_path / RECORD).write_bytes(values.encode("utf-8", "surrogateescape"))
    found = read_record(tmp_path / RECORD)
    assert found is not None and found.owner is None
    good = json.loads(record_text(own_identity({})).partition("\n")[0])
    (tmp_path / RECORD).write_text(json.dumps({**good, "pid": "x"}))
    found = read_record(tmp_path / RECORD)
    assert found is not None and found.owner is None
