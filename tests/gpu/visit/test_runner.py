"""Parts end in time and alone: what hangs, fails or lives on never takes the others along."""

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.gpu.visit import family
from tests.gpu.visit.__main__ import forget, left
from tests.gpu.visit.parts import BUILD, PARTS, Part, Setting, chosen
from tests.gpu.visit.record import Record, log_file, noted, read_record, record_file, write_record
from tests.gpu.visit.runner import CPU_SLOWER, Runner, zip_records

WELL = "print('well')"
LEAVES_A_DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
os.wait()
"""
STOPS_THE_VISIT = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(600)"


def visit(
    out: Path,
    codes: dict[str, str],
    parts: Sequence[Part] | None = None,
    seconds: float = 60,
    lanes: int = 1,
) -> Runner:
    """Run these programs as parts."""

    def command(part: Part, setting: Setting) -> list[str]:
        return [sys.executable, "-S", "-c", codes[part.name]]

    parts = parts or [Part(name, 30, name) for name in codes]
    setting = Setting("cpu", True, out)
    environ = dict(os.environ)
    until = time.monotonic() + seconds
    runner = Runner(command, setting, until, environ, out, out / "visit.zip", lanes)
    runner.run(parts)
    return runner


def states(out: Path, *names: str) -> list[str]:
    found = [read_record(out, name) for name in names]
    return ["" if record is None else record.state for record in found]


def test_a_part_that_hangs_or_fails_does_not_end_the_others(tmp_path: Path) -> None:
    codes = {
        "hangs": "import time; print('so far', flush=True); time.sleep(600)",
        "fails": "raise ZeroDivisionError('of this part')",
        "well": WELL,
    }
    parts = [Part("hangs", 0.5 / CPU_SLOWER, ""), Part("fails", 30, ""), Part("well", 30, "")]
    visit(tmp_path, codes, parts)
    assert states(tmp_path, *codes) == ["timed out", "failed", "done"]
    hung, failed = read_record(tmp_path, "hangs"), read_record(tmp_path, "fails")
    assert hung is not None and "so far" in hung.why
    assert failed is not None and failed.why.endswith("ZeroDivisionError: of this part")
    with zipfile.ZipFile(tmp_path / "visit.zip") as archive:
        assert {"hangs.json", "fails.log", "well.json"} <= set(archive.namelist())


def test_what_a_part_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    me = psutil.Process()
    before = set(me.children(recursive=True))
    visit(tmp_path, {"leaves": LEAVES_A_DAEMON, "well": WELL})
    assert states(tmp_path, "leaves", "well") == ["done", "done"]
    assert set(me.children(recursive=True)) == before


def test_a_stopped_visit_keeps_what_it_has(tmp_path: Path) -> None:
    runner = visit(tmp_path, {"well": WELL, "stops": STOPS_THE_VISIT, "never": WELL})
    assert states(tmp_path, "well", "stops", "never") == ["done", "cut off", ""]
    assert runner.not_reached == ["never"]
    assert os.getpid() == psutil.Process().pid  # the signal was the visit's


def test_no_part_begins_without_time_for_it(tmp_path: Path) -> None:
    runner = visit(tmp_path, {"first": WELL, "second": WELL}, seconds=1)
    assert runner.not_reached == ["first", "second"]


def test_a_part_ends_with_the_visits_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.gpu.visit.runner.SHORTEST_S", 0.1)
    visit(tmp_path, {"hangs": "import time; time.sleep(600)"}, seconds=0.5)
    assert states(tmp_path, "hangs") == ["timed out"]


MEETS = """
import os, time
open({own!r}, "w")
while not os.path.exists({other!r}): time.sleep(0.05)
"""


def test_parts_whose_times_do_not_count_share_the_machine(tmp_path: Path) -> None:
    """Two that wait for one another, then one whose times count, and nothing beside it."""
    codes = {
        "one": MEETS.format(own="a", other="b"),
        "two": MEETS.format(own="b", other="a") + "time.sleep(0.5)\nos.remove('a')",
        "timed": "import os; assert not os.path.exists('a') and not os.path.exists('c')",
        "after": "open('c', 'w')",
    }
    parts = [Part(name, 30, "", timed=name == "timed") for name in codes]
    visit(tmp_path, codes, parts, lanes=2)
    assert states(tmp_path, *codes) == ["done"] * 4


def test_what_one_part_leaves_behind_is_told_from_anothers(tmp_path: Path) -> None:
    """The second goes on with a process of its own that has no parent any more."""
    beats = LEAVES_A_DAEMON.replace("time.sleep(600)", "time.sleep(1); open('beat', 'w')")
    codes = {
        "leaves": LEAVES_A_DAEMON,
        "beats": beats + "while not os.path.exists('beat'): time.sleep(0.05)",
    }
    visit(tmp_path, codes, [Part(name, 20, "", timed=False) for name in codes], lanes=2)
    assert states(tmp_path, *codes) == ["done", "done"]


BUILDS = (
    Part(BUILD, 30, "", needs_horovod=False, timed=False, beside=True),
    Part("needs", 30, ""),
    Part("does without", 30, "", needs_horovod=False),
)


def test_what_does_without_horovod_runs_beside_its_build(tmp_path: Path) -> None:
    codes = {
        BUILD: "import os, time\nwhile not os.path.exists('there'): time.sleep(0.05)",
        "needs": WELL,
        "does without": "open('there', 'w')",
    }
    visit(tmp_path, codes, BUILDS)
    assert states(tmp_path, *codes) == ["done", "done", "done"]


def test_without_horovod_what_needs_it_says_so(tmp_path: Path) -> None:
    codes = {BUILD: "raise SystemExit(3)", "needs": WELL, "does without": WELL}
    visit(tmp_path, codes, BUILDS)
    assert states(tmp_path, *codes) == ["failed", "failed", "done"]
    record = read_record(tmp_path, "needs")
    assert record is not None and record.why == f"Horovod was not built: {BUILD}.log"


def test_a_record_is_read_as_it_was_written_or_not_at_all(tmp_path: Path) -> None:
    record = noted(noted(Record("one", "done", "cpu"), "z, ms", 1.5), "a", "words")
    write_record(tmp_path, record)
    found = read_record(tmp_path, "one")
    assert found == record and list(found.quantities) == ["z, ms", "a"]
    whole = record_file(tmp_path, "one").read_text(encoding="utf-8")
    record_file(tmp_path, "one").write_text(whole[:40], encoding="utf-8")
    assert read_record(tmp_path, "one") is None and read_record(tmp_path, "none") is None


@pytest.mark.parametrize("text", ['{"state": "done"}', '{"state": "done", "quantities": [1]}'])
def test_what_is_no_record_is_none(tmp_path: Path, text: str) -> None:
    record_file(tmp_path, "one").write_text(text, encoding="utf-8")
    assert read_record(tmp_path, "one") is None


def test_a_trial_does_not_stand_for_the_visit(tmp_path: Path) -> None:
    """Nor another machine's visit for what this one does not reach."""
    parts = chosen(["machine", "steps"])
    for part in parts:
        write_record(tmp_path, Record(part.name, "done", "cpu", small=True))
        log_file(tmp_path, part.name).write_text("a trial", encoding="utf-8")
    trial, whole = Setting("cpu", True, tmp_path), Setting("cpu", False, tmp_path)
    assert left(parts, trial) == ()
    assert left(parts, whole) == left(parts, Setting("cuda", True, tmp_path)) == parts
    forget(tmp_path, parts[1:])
    assert read_record(tmp_path, "machine") is not None
    assert read_record(tmp_path, "steps") is None and not log_file(tmp_path, "steps").exists()


def test_what_is_left_has_horovod_where_it_may_be_gone(tmp_path: Path) -> None:
    """With the environment, say, in a temporary folder."""
    for part in PARTS:
        write_record(tmp_path, Record(part.name, "done", "cuda"))
    setting = Setting("cuda", False, tmp_path, tmp_path)
    assert left(PARTS, setting) == ()
    for name, with_horovod in (("machine", False), ("steps", True)):
        write_record(tmp_path, Record(name, "failed", "cuda"))
        assert (left(PARTS, setting)[0].name == BUILD) is with_horovod
    assert left(PARTS, replace(setting, carried=None)) == chosen(["machine", "steps"])


def test_an_error_of_the_visit_leaves_no_part_behind(tmp_path: Path) -> None:
    codes = {BUILD: "import time; time.sleep(600)"}  # and no command for the other
    me = psutil.Process()
    before = set(me.children(recursive=True))
    with pytest.raises(KeyError, match="does without"):
        visit(tmp_path, codes, [BUILDS[0], BUILDS[2]])
    assert set(me.children(recursive=True)) == before


def test_a_process_that_does_not_end_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that a driver holds."""
    words = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    held = family.begin(words, tmp_path / "log", {**os.environ, "MARKED": "held"}, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(family, "_GRACE_S", 0.2)
        patch.setattr(family, "_LAST_S", 0.2)
        patch.setattr(os, "kill", lambda *_: None)
        patch.setattr(os, "killpg", lambda *_: None)
        patch.setattr(held, "send_signal", lambda _: None)
        began = time.monotonic()
        family.end(held)
        family.end_orphans("MARKED", "held", ())
        assert time.monotonic() - began < 10 and held.poll() is None
    family.end(held)
    assert held.poll() is not None


def test_the_zip_holds_records_and_logs(tmp_path: Path) -> None:
    write_record(tmp_path, Record("one", "done", "cpu"))
    log_file(tmp_path, "one").write_text("log", encoding="utf-8")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "operators.txt").write_text("more", encoding="utf-8")
    (tmp_path / "one" / "checkpoint.pt").write_text("large", encoding="utf-8")
    zip_records(tmp_path, tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert sorted(archive.namelist()) == ["one.json", "one.log", "one/operators.txt"]
        assert json.loads(archive.read("one.json"))["state"] == "done"


@pytest.mark.parametrize("word", ["--help", "run --help"])
def test_the_command_line_does_without_torch(word: str) -> None:
    """It runs before the visited machine has the environment."""
    code = (
        f"import runpy, sys; sys.argv = ['visit', *{word!r}.split()]\n"
        "try: runpy.run_module('tests.gpu.visit', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'psutil', 'yaml', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
