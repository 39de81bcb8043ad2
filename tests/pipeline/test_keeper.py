"""A process that keeps the place of another: what the launcher sees of it."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megdet_hvd.pipeline.keeper import Deaths, connections_to_pmix, dismiss, give_up
from tests.ranks import ROOT

RANK = """
import os, signal, sys, time
from pathlib import Path
from megdet_hvd.pipeline.keeper import keep_place, leaves_in_order, may_die
keep_place(2)
def ready():
    Path(sys.argv[1]).write_text(str(os.getpid()))
"""


def start(folder: Path, code: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", f"{RANK}\n{code}", str(folder / "pid"), str(folder / "sign")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def child_of(folder: Path) -> int:
    until = time.monotonic() + 60
    while not (folder / "pid").exists() or not (folder / "pid").read_text():
        assert time.monotonic() < until, "it did not start"
        time.sleep(0.02)
    return int((folder / "pid").read_text())


@pytest.mark.parametrize(
    ("code", "ends_with"),
    [
        ("sys.exit(0)", 0),
        ("sys.exit(3)", 3),
        ("may_die(Path(sys.argv[2])); leaves_in_order(); sys.exit(5)", 5),
        ("may_die(Path(sys.argv[2])); sys.exit(0)", 0),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.abort()", -signal.SIGABRT),
    ],
)
def test_it_ends_as_the_rank(code: str, ends_with: int, tmp_path: Path) -> None:
    process = start(tmp_path, code)
    said, told = process.communicate(timeout=60)
    assert process.returncode == ends_with, told
    assert said == "" and "training goes on" not in told


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSEGV])
def test_a_death_that_was_allowed_is_not_seen_until_training_ends(
    death: signal.Signals, tmp_path: Path
) -> None:
    process = start(tmp_path, "may_die(Path(sys.argv[2])); ready(); time.sleep(300)")
    child = child_of(tmp_path)
    signs = {1: tmp_path / "another", 2: tmp_path / "sign"}
    assert Deaths(signs)() == ()
    os.kill(child, death)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line == (
        f"evaluator, rank 2: its process has ended (signal {int(death)}); training goes on "
        "without it\n"
    )
    time.sleep(1)
    assert process.poll() is None, "the launcher would end the job"
    assert Deaths(signs)() == (2,), "without a watchdog nobody else can tell"
    began = time.monotonic()
    give_up(tmp_path / "sign")
    process.communicate(timeout=60)
    assert process.returncode == 1 and time.monotonic() - began > 2, "the others leave first"
    assert [path.name for path in tmp_path.iterdir()] == ["pid"]


def test_a_connection_to_pmix_outlives_the_rank_as_long_as_its_place_is_kept(
    tmp_path: Path,
) -> None:
    """Slurm's PMIx ends the whole step once a rank's connection is lost."""
    code = """
import socket
from megdet_hvd.pipeline.keeper import connections_to_pmix
own = socket.create_connection(("127.0.0.1", PORT))
other = socket.create_connection(("127.0.0.1", OTHER))
uris = {"PMIX_SERVER_URI41": "slurm.pmix.7.0;tcp4://127.0.0.1:PORT", "PMIX_RANK": "2"}
found = connections_to_pmix(uris)
assert found == [own.fileno()], (found, own.fileno())
may_die(Path(sys.argv[2]), found)
ready(); time.sleep(300)
"""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_server(("127.0.0.1", 0)) as another,
    ):
        ports = (str(one.getsockname()[1]) for one in (server, another))
        for name, port in zip(("PORT", "OTHER"), ports, strict=True):
            code = code.replace(name, port)
        process = start(tmp_path, code)
        child = child_of(tmp_path)
        held, dropped = server.accept()[0], another.accept()[0]
        os.kill(child, signal.SIGKILL)
        assert process.stderr is not None and "training goes on" in process.stderr.readline()
        for connection in (held, dropped):
            connection.settimeout(2)
        assert dropped.recv(1) == b"", "closed with the rank"
        with pytest.raises(TimeoutError):
            held.recv(1)
        give_up(tmp_path / "sign")
        process.communicate(timeout=60)
        assert held.recv(1) == b""
        held.close()
        dropped.close()


def test_connections_to_pmix_of_every_kind(tmp_path: Path) -> None:
    path = str(tmp_path / "pmix.socket")
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as other,
    ):
        unix.bind(path)
        unix.listen()
        other.bind(str(tmp_path / "other"))
        other.listen()
        uris = {
            "PMIX_SERVER_URI3": f"ns.0;tcp6://[::1]:{six.getsockname()[1]}",
            "PMIX_SERVER_URI": f"ns:0:{path}",
        }
        with (
            socket.create_connection(six.getsockname()[:2]) as first,
            socket.socket(socket.AF_UNIX) as second,
            socket.socket(socket.AF_UNIX) as third,
        ):
            second.connect(path)
            third.connect(str(tmp_path / "other"))
            expected = sorted([first.fileno(), second.fileno()])
            before = os.listdir("/proc/self/fd")
            assert connections_to_pmix(uris) == expected
            assert len(os.listdir("/proc/self/fd")) == len(before), "none is left open"
            assert connections_to_pmix({"PATH": path}) == []


def test_who_waits_for_a_dead_one_is_killed_when_training_ends(tmp_path: Path) -> None:
    process = start(tmp_path, "may_die(Path(sys.argv[2])); ready(); time.sleep(300)")
    child = child_of(tmp_path)
    dismiss(tmp_path / "sign")
    assert process.stderr is not None and "training goes on" in process.stderr.readline()
    assert process.poll() is None and not Path(f"/proc/{child}").exists(), "its place is kept"
    give_up(tmp_path / "sign")
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["pid"]


def test_a_place_that_is_kept_for_a_dead_one_is_left_at_sigterm_alone(tmp_path: Path) -> None:
    """SIGUSR1 is a wish that training stops, and it has yet to."""
    process = start(tmp_path, "may_die(Path(sys.argv[2])); ready(); time.sleep(300)")
    os.kill(child_of(tmp_path), signal.SIGKILL)
    assert process.stderr is not None and "training goes on" in process.stderr.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGUSR1)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.2)
    process.terminate()
    assert process.wait(60) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["pid"]


def test_no_place_is_kept_once_the_launcher_has_gone(tmp_path: Path) -> None:
    code = "may_die(Path(sys.argv[2])); ready(); time.sleep(300)"
    keeper = [sys.executable, "-c", f"{RANK}\n{code}", str(tmp_path / "pid"), str(tmp_path / "s")]
    script = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:]); print(p.pid); p.wait()"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", script, *keeper],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as launcher:
        assert launcher.stdout is not None and launcher.stderr is not None
        kept = int(launcher.stdout.readline())
        os.kill(child_of(tmp_path), signal.SIGKILL)
        assert "training goes on" in launcher.stderr.readline()
        launcher.kill()
        ended = select.select([launcher.stderr], [], [], 60)[0]  # the end of the last to hold it
        if not ended:
            os.kill(kept, signal.SIGKILL)
        assert ended and launcher.stderr.read() == ""


def test_signals_reach_the_rank_and_nobody_is_left_over(tmp_path: Path) -> None:
    report = (
        "may_die(Path(sys.argv[2]))\n"
        "signal.signal(signal.SIGTERM, lambda *_: (leaves_in_order(), sys.exit(9)))\n"
        "ready(); time.sleep(300)"
    )
    process = start(tmp_path, report)
    child_of(tmp_path)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 9
    (tmp_path / "pid").unlink()

    process = start(tmp_path, "may_die(Path(sys.argv[2])); ready(); time.sleep(300)")
    child = child_of(tmp_path)
    process.kill()  # as a launcher does in the end
    process.wait(timeout=60)
    until = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()
    (tmp_path / "pid").unlink()

    process = start(tmp_path, "may_die(Path(sys.argv[2])); ready(); time.sleep(300)")
    os.kill(child_of(tmp_path), signal.SIGKILL)
    assert process.stderr is not None and "training goes on" in process.stderr.readline()
    process.terminate()  # the launcher ends the job
    process.communicate(timeout=60)
    assert process.returncode == 1
