"""One writer for a run folder, whatever starts it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megdet_hvd.checkpoint.file import is_sound
from megdet_hvd.checkpoint.naming import list_checkpoints
from megdet_hvd.engine.run_folder.lock import holding
from megdet_hvd.errors import RUN_ERROR, USER_ERROR, UserError
from tests.engine.small import small_settings
from tests.engine.tale import ALONE
from tests.ranks import ROOT, run_ranks

HERE = Path(__file__).parent


def test_a_run_that_ends_before_it_writes_leaves_no_folder(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for path in (tmp_path / "runs" / "new", mine):
        with pytest.raises(UserError, match="bad boxes"), holding(path, ALONE):
            raise UserError("bad boxes")
    assert os.listdir(tmp_path / "runs") == [] and os.listdir(mine) == []
    with holding(tmp_path / "kept", ALONE):
        (tmp_path / "kept" / "config.yaml").touch()
    assert os.listdir(tmp_path / "kept") == ["config.yaml"]


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "same"
    words = ["-m", "megdet_hvd.train", "--run", str(folder)]
    words += small_settings(tmp_path, "checkpoint.every_iterations=1", "learning.epochs=400")
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL, env=environ
    )
    os.setpriority(os.PRIO_PROCESS, first.pid, 19)  # it trains for as long as the second starts
    try:
        deadline = time.monotonic() + 120
        while not list_checkpoints(folder / "checkpoints") and time.monotonic() < deadline:
            time.sleep(0.05)
        began = time.monotonic()
        second = run_ranks(words, 2, launcher="mpirun", timeout_s=200)
        assert second.returncode == USER_ERROR, second.stdout
        told = re.findall(r"error: .*", second.stdout)
        assert len(told) == 1, second.stdout
        where = f"{re.escape(str(folder))}: process {first.pid} on {os.uname().nodename}, since 20"
        assert re.search(rf"error: rank 0: {where}.*works in this run", told[0]), told
        assert "Traceback" not in second.stdout
        assert time.monotonic() - began < 120
        assert first.poll() is None, "the first goes on"
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    reached = int(list_checkpoints(folder / "checkpoints")[-1].stem[-8:])
    leftover = folder / "checkpoints" / ".iteration_00000999.pt.n7-77-0123abcd.tmp"
    leftover.write_bytes(b"half of it")
    end = f"learning.max_iterations={reached + 1}"
    third = run_ranks([*words, end], 1, launcher="python", timeout_s=200)
    assert third.returncode == 0, third.stdout
    assert f"carrying on after iteration {reached}" in third.stdout
    kept = list_checkpoints(folder / "checkpoints")
    assert [path.stem[-8:] for path in kept] == [f"{reached:08d}", f"{reached + 1:08d}"]
    assert all(is_sound(path) for path in kept) and not leftover.exists()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line["iteration"] for line in lines if line["kind"] == "train"]
    assert steps == list(range(1, reached + 2)), "each once"
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


def test_a_run_that_is_refused_and_one_that_is_taken_over(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "check_lock.py"), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert re.search(r"refused: .*: process \d+ on .* works in this run", done.stdout), done.stdout
    assert "left ['.lock', '.lock.owner']" in done.stdout, "nothing was written beside another"
    assert "iteration 1 []" in done.stdout and "failed []" in done.stdout, done.stdout
    assert done.returncode == RUN_ERROR != USER_ERROR, done.stdout
    assert re.search(r"error: .*process 77 on n7.* has taken over this run", done.stdout)
    folder = tmp_path / "runs" / "x"
    found = [path.name for path in list_checkpoints(folder / "checkpoints")]
    # Its first step of this start was saved; the second one's checkpoint was not.
    assert found == ["iteration_00000001.pt", "iteration_00000002.pt"], found
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines if line["kind"] == "train"] == [1, 2]
    assert (folder / ".lock.owner").exists(), "the new owner's"
