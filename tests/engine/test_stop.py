"""Runs that are stopped, killed, or short of disk: how they end, and how they go on."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from megdet_hvd.cluster.outcome import Outcome, read_outcome
from megdet_hvd.errors import FAULT, RUN_ERROR, STOPPED, USER_ERROR
from tests.pool import on_ranks
from tests.ranks import ROOT, Launcher, run_ranks

HERE = Path(__file__).parent

ENDS = {
    "whole": (0, 6, r"finished after iteration 6"),
    "usr1": (STOPPED, 2, r"\(SIGUSR1 came to rank 1 \(.*\)\) after iteration 2 of 6; carry on wi"),
    "evaluating": (STOPPED, 3, r"\(SIGTERM came to rank 0 .* its evaluation still to be done; "),
    "file": (STOPPED, 3, r"\(the queue is drained\) after iteration 3 of 6, its evaluation"),
    "term": (STOPPED, 4, r"\(SIGTERM came to rank 1 .*\) after iteration 4 of 6; carry on with: "),
    "rest": (0, 6, r"finished after iteration 6"),
    "evaluate": (STOPPED, None, r"\(SIGTERM came to rank 1 .* has no result"),
    "both": (USER_ERROR, None, r"--run .* and --resume both name a run"),
}


@pytest.mark.parametrize("launcher", ["gloo"])
def test_a_run_stopped_in_every_way_equals_one_that_was_not(
    launcher: Launcher, tmp_path: Path
) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    check = "tests.engine.check_stop:stopped_in_every_way"
    done = on_ranks(check, 2, folder, launcher=launcher, timeout_s=400)
    for name, (code, iteration, message) in ENDS.items():
        codes = re.findall(rf"ATTEMPT {name} exit (\d+)", done.stdout)
        assert codes == [str(code)] * 2, f"{name}: {codes}\n{done.stdout}"
        outcome = read_outcome(folder / f"{name}.json")
        assert outcome is not None and (outcome.code, outcome.iteration) == (code, iteration), name
        assert re.search(message, outcome.message), outcome
    carried_on = f"carry on with: python -m megdet_hvd.train --run '{folder}/runs/parts'"
    assert done.stdout.count(carried_on) == 4, done.stdout
    assert "EQUAL bit for bit" in done.stdout
    assert "ended without a word" not in done.stdout and "the job hangs" not in done.stdout
    check_images(folder)


def check_images(folder: Path) -> None:
    """The parts saw what the whole saw, and no picture came twice in an epoch."""
    stream: list[list[str]] = [[] for _ in range(6)]
    for rank in range(2):
        seen = json.loads((folder / f"images_{rank}.json").read_text())
        parts = [step for name in ("usr1", "evaluating", "term", "rest") for step in seen[name]]
        assert "file" not in seen
        assert [len(seen[name]) for name in ("usr1", "evaluating", "term", "rest")] == [2, 1, 1, 2]
        assert parts == seen["whole"]
        for step, ids in enumerate(parts):
            stream[step] += ids.split()
    order = [image for step in stream for image in step]
    assert len(order) == 72
    first = Counter(order[:24])
    assert max(first.values()) == 1, "two whole steps of the first epoch of 27 pictures"
    assert max(Counter(order[:54]).values()) <= 3 and len(set(order)) == 27


@pytest.mark.parametrize("launcher", [pytest.param("gloo", marks=pytest.mark.tail), "mpirun"])
def test_the_last_words_of_a_rank_that_was_killed(launcher: Launcher, tmp_path: Path) -> None:
    done = run_ranks(HERE / "check_kill.py", 2, tmp_path, launcher=launcher, timeout_s=200)
    assert done.returncode != 0
    layer = r"cgbn\.backbone\.body\.layer1\.0\.bn1\.forward\.0"
    told = re.findall(
        rf"error: rank 1 \((\S+)\) has ended without a word, [\d.]+ s before: step 3, in {layer} "
        rf"\(\d+ values\)(; rank 0 \(\S+\) waits in {layer})?",
        done.stdout,
    )
    assert len(told) == 1, done.stdout
    # Under Gloo, Horovod frees the waiting rank as soon as the other's connection is closed.
    assert launcher == "gloo" or "waits in" in told[0][1], done.stdout


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    # Through a pipe: a file of output would be limited as well.
    done = subprocess.run(
        [sys.executable, str(HERE / "check_disk.py"), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert "ATTEMPT" in done.stdout, done.stdout
    said = {part.partition(" ")[0]: part for part in done.stdout.split("ATTEMPT ")[1:]}

    goes_on = said["continue"]
    assert "ended with 0" in goes_on, done.stdout
    failed = re.findall(
        r"error: iteration (\d): the checkpoint could not be written: (\S+): cannot be written "
        r"\(File too large\).*next attempt is due after iteration (\d)\. The newest good "
        r"checkpoint is (\S+)",
        goes_on,
    )
    assert [(at, due) for at, _, due, _ in failed] == [("2", "3"), ("3", "4")], goes_on
    assert all(good.endswith("iteration_00000001.pt") for *_, good in failed)
    assert goes_on.count("metrics.jsonl can't be written (File too large)") == 1, goes_on
    assert goes_on.count("log.txt can't be written (File too large)") == 1
    assert goes_on.count("tensorboard can't be written (File too large)") == 1
    folder = tmp_path / "runs" / "continue"
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    whole = [json.loads(line)["iteration"] for line in lines if line.endswith("}")]
    assert whole == [1, 4, 4], "the last is the evaluation"
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert kept == ["best.pt", "iteration_00000001.pt", "iteration_00000004.pt"]

    for name in ("stop", "last", "requested"):
        assert f"ended with {RUN_ERROR}" in said[name], said[name]
        outcome = read_outcome(tmp_path / f"{name}.json")
        assert outcome is not None and outcome.code == RUN_ERROR, outcome
        assert "iteration 2: the checkpoint could not be written" in outcome.message
        assert "The newest good checkpoint is " in outcome.message
        assert outcome.message.endswith("iteration_00000001.pt") and outcome.iteration == 2
    assert "ended with 0" in said["anew"], said["anew"]
    lines = (tmp_path / "runs" / "anew" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["train", "eval"]
    assert json.loads(lines[0])["loss"] != 9
    assert f"ended with {STOPPED}" in said["term"]
    assert "stopped on request (SIGTERM came) after iteration 2 of 4" in said["term"]

    assert done.returncode == FAULT, "a fault ends the process itself"
    message = "rank 0: ZeroDivisionError: a fault in a step"
    run = str(tmp_path / "runs" / "fault")
    assert read_outcome(tmp_path / "fault.json") == Outcome(FAULT, message, 1, run)
