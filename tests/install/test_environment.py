"""What becomes of an environment that is already there; locks, moves and stamps."""

import multiprocessing
import signal
import subprocess
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

from install.console import run_logged
from install.environment import OPEN_MPI_PREFIX, commands, fate, wanted_stamp
from install.files import only_one, put_folder, read_json, write_json
from install.keys import ready
from install.problem import SetupProblem
from install.settings import Places, Settings

ROOT = Path(__file__).resolve().parents[2]

SETTINGS = {"torch": "2.14.1", "mpi": "package", "architectures": ""}
READY = {"state": "ready", "settings": SETTINGS}


@pytest.mark.parametrize(
    ("stamp", "there", "settings", "its_python", "expected"),
    [
        (None, False, SETTINGS, "", "make"),
        (READY, True, SETTINGS, "3.11", "update"),
        (READY, True, {**SETTINGS, "architectures": "80"}, "3.11", "update"),
        (READY, True, {**SETTINGS, "torch": "2.11.0"}, "3.11", "make"),
        (READY, True, {**SETTINGS, "mpi": "site"}, "3.11", "make"),
        (READY, True, SETTINGS, "3.12", "make"),
        ({"state": "begun"}, True, SETTINGS, "3.11", "make"),
        ({"state": "begun", "adopted": True}, True, SETTINGS, "3.11", "repair"),
        (None, True, SETTINGS, "3.11", "adopt"),
        (None, True, SETTINGS, "3.10", "refuse"),
        (None, True, SETTINGS, "", "refuse"),
    ],
)
def test_fate(
    stamp: dict[str, object] | None,
    there: bool,
    settings: dict[str, str],
    its_python: str,
    expected: str,
) -> None:
    assert fate(stamp, there, settings, "3.11", its_python) == expected


def test_an_environment_without_a_newer_command_is_brought_up_to_date(tmp_path: Path) -> None:
    assert {"megdet-train", "megdet-init"} <= {*commands(ROOT)}
    head = "[options.entry_points]\nconsole_scripts =\n    one = a.b:c\n"
    (tmp_path / "setup.cfg").write_text(head)
    settings = Settings("2.14.1", "package", "")
    places = Places(tmp_path, tmp_path / "venv", tmp_path, tmp_path, None)
    stamp = {**wanted_stamp(settings, places, "", False), "state": "ready"}
    assert stamp["commands"] == ["one"] and ready(stamp, wanted_stamp(settings, places, "", False))
    (tmp_path / "setup.cfg").write_text(head + "    two = a.b:d\n")
    assert not ready(stamp, wanted_stamp(settings, places, "", False))


def test_a_damaged_stamp_is_no_stamp(tmp_path: Path) -> None:
    stamp = tmp_path / "new folder" / "stamp.json"
    assert read_json(stamp) is None
    write_json(stamp, {"state": "ready"})
    assert read_json(stamp) == {"state": "ready"}
    assert [path.name for path in stamp.parent.iterdir()] == ["stamp.json"]
    stamp.write_text('{"state": "rea')
    assert read_json(stamp) is None


def test_a_finished_folder_replaces_what_was_there(tmp_path: Path) -> None:
    made, place = tmp_path / "made", tmp_path / "deep" / "place"
    place.mkdir(parents=True)
    (place / "old").touch()
    made.mkdir()
    (made / "new").touch()
    put_folder(made, place)
    assert [path.name for path in place.iterdir()] == ["new"]
    assert not made.exists()


def _hold(lock: Path, held: Event, let_go: Event) -> None:
    with only_one(lock, "a thing"):
        held.set()
        let_go.wait(60)


def test_the_second_set_up_waits_for_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = multiprocessing.get_context("spawn")
    held, let_go = context.Event(), context.Event()
    lock = tmp_path / "locks" / "a.lock"
    other = context.Process(target=_hold, args=(lock, held, let_go))
    other.start()
    try:
        assert held.wait(60)
        waiting = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sys; from pathlib import Path; from install.files import only_one\n"
                "with only_one(Path(sys.argv[1]), 'a thing'): print('mine')",
                str(lock),
            ],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert waiting.stdout is not None
        assert "another set-up is working on a thing" in waiting.stdout.readline()
        time.sleep(0.2)
        assert waiting.poll() is None
        let_go.set()
        assert waiting.stdout.read() == "mine\n"
        assert waiting.wait(60) == 0
        waiting.stdout.close()
    finally:
        let_go.set()
        other.join(60)


def test_a_failed_command_is_told_in_few_lines(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "it.log"
    code = "import sys; print('x\\n' * 5000); print('a.cc:3: error: no such thing'); sys.exit(3)"
    with pytest.raises(SetupProblem) as caught:
        run_logged("building it", [sys.executable, "-c", code], log)
    lines = str(caught.value).splitlines()
    assert lines[:2] == ["building it failed (exit code 3):", "    a.cc:3: error: no such thing"]
    assert str(log) in lines[-1] and len(lines) == 3
    assert len(log.read_text().splitlines()) > 5000


def test_a_program_that_is_not_there_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(SetupProblem, match="cannot run /no/such/program"):
        run_logged("building it", ["/no/such/program"], tmp_path / "it.log")


def test_open_mpis_place_is_told_only_where_it_is(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.prefix = sys.argv[1]\n{OPEN_MPI_PREFIX}\n"
        "import os; print(os.environ.get('OPAL_PREFIX'))"
    )
    environ = {"PATH": "/usr/bin:/bin"}

    def prefix(folder: Path, **more: str) -> str:
        # -S: the environment's own line of this kind must not speak first
        command = [sys.executable, "-S", "-c", code, str(folder)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**environ, **more}
        )
        return done.stdout.strip()

    empty, full = tmp_path / "empty", tmp_path / "it's full"
    (full / "bin").mkdir(parents=True)
    (full / "bin" / "orted").touch()
    assert prefix(empty, OPAL_PREFIX="/set") == "/set"
    assert prefix(full, OPAL_PREFIX="/set") == "/set"
    assert prefix(full) == str(full)
    assert prefix(empty) == "None"


def test_a_signal_waits_for_a_command_that_is_being_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def slow(*words: Any, **settings: Any) -> Any:
        process = popen(*words, **settings)
        started.append(process)
        signal.raise_signal(signal.SIGTERM)  # before anybody has it
        return process

    popen: Any = subprocess.Popen
    before = signal.signal(signal.SIGTERM, stop)
    try:
        monkeypatch.setattr(subprocess, "Popen", slow)
        with pytest.raises(KeyboardInterrupt):
            run_logged("waiting", ["sleep", "300"], tmp_path / "log", cwd=tmp_path)
        assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, before)
        for process in started:
            ended = process.poll()
            process.kill()
    assert ended == -signal.SIGTERM


def test_an_interrupted_command_takes_its_children_along(tmp_path: Path) -> None:
    code = (
        "import signal, sys\n"
        "def stop(*_): raise KeyboardInterrupt\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "from pathlib import Path\n"
        "from install.console import run_logged\n"
        "run_logged('waiting', ['sh', '-c', 'sleep 300 & echo $! > pid; wait'], Path('l'),"
        " cwd=Path.cwd())\n"
    )
    pid_file = tmp_path / "pid"
    root = str(Path(__file__).parents[2])
    environ = {"PYTHONPATH": root, "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=environ, stderr=subprocess.DEVNULL
    ) as process:
        while not (pid_file.exists() and pid_file.read_text().strip()):
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        assert process.wait(60) != 0
    sleeper = Path("/proc", pid_file.read_text().strip(), "cmdline")
    for _ in range(100):
        if not sleeper.exists() or b"sleep" not in sleeper.read_bytes():
            return
        time.sleep(0.1)
    raise AssertionError("the child of the interrupted command goes on")
