"""The whole visit on a CPU, in sizes of seconds: every part runs, and what must hold holds."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from megdet_hvd.command import BAD_INPUT
from tests.gpu.visit.parts import PARTS
from tests.gpu.visit.record import read_record
from tests.ranks import ROOT, surroundings_of


def visit(command: str, out: Path, more: str = "") -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, "-m", "tests.gpu.visit", command, str(out), *more.split()]
    return subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, env=surroundings_of({}), timeout=3000
    )


def test_a_part_by_itself(tmp_path: Path) -> None:
    done = visit("run", tmp_path, "--device cpu --small --only machine")
    record = read_record(tmp_path, "machine")
    assert record is not None and record.state == "done", done.stdout + done.stderr
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "as expected, all 1 parts"
    assert "torch" in record.quantities and "convolutions in TF32" not in record.quantities
    again = visit("run", tmp_path, "--again --only machine --device cpu --small")
    assert "machine: done" not in again.stdout, "it is done"
    table = visit("table", tmp_path)
    assert table.stdout == again.stdout and "Horovod can be built" in table.stdout
    assert (tmp_path / "table.txt").read_text(encoding="utf-8") == table.stdout
    wrong = visit("run", tmp_path, "--only mashine")
    assert wrong.returncode == BAD_INPUT and "there is no part 'mashine'" in wrong.stderr


def test_whoever_ends_it_early_has_the_table(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.gpu.visit", "run", str(tmp_path), "--only", "machine"]
    with subprocess.Popen(
        [*words, "doctor", "--device", "cpu"],
        cwd=ROOT,
        env=surroundings_of({}),
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "machine: GPU, driver, versions, compilers …\n"
        running.terminate()
        told = running.stdout.read().splitlines()
        assert running.wait(60) == 1
    assert told[-3:] == ["off:", "machine: cut off by SIGTERM", "doctor: not reached"]
    with zipfile.ZipFile(tmp_path / "visit.zip") as archive:
        assert {"machine.json", "table.txt"} <= set(archive.namelist())


@pytest.mark.launch
@pytest.mark.timeout(3000)
@pytest.mark.tail  # each part's own logic: the tests beside this one, and those it calls
def test_all_of_it(tmp_path: Path) -> None:
    done = visit("run", tmp_path, "--device cpu --small --minutes 45")
    found = {part.name: read_record(tmp_path, part.name) for part in PARTS}
    states = {name: None if record is None else record.state for name, record in found.items()}
    assert set(states.values()) == {"done"}, f"{states}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, done.stdout
