"""The whole pipeline in real processes: evaluation concurrent or in line, any fault ends it."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from megdet_hvd.checkpoint.file import load_checkpoint
from megdet_hvd.config.load import load_config
from tests.engine.small import small_settings
from tests.pool import on_ranks
from tests.ranks import run_ranks

CHECK = Path(__file__).with_name("check_pipeline.py")
PIPELINE = ["-m", "megdet_hvd.pipeline"]
STEPS = 5  # 27 pictures, batch 12: epochs end in steps 3 and 5

# Nothing is learned in so few steps, so that AP above 0 needs many boxes on many pictures.
MANY_BOXES = (
    "data.scenes.val_images=16",
    "model.roi.score_threshold=0.0",
    "model.roi.nms_iou=0.9",
    "model.rpn.nms_iou=0.95",
    "model.rpn.pre_nms_test=1000",
    "model.rpn.post_nms_test=1000",
)


def settings(folder: Path, *more: str) -> list[str]:
    return small_settings(
        folder,
        *MANY_BOXES,
        "deterministic=true",
        "evaluation.every_epochs=1",
        "checkpoint.keep=1",
        f"learning.max_iterations={STEPS}",
        *more,
    )


def evaluations(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "eval"]


def test_evaluated_concurrently_as_in_line(tmp_path: Path) -> None:
    """Stopped while rank 0 waits for every evaluation, carried on, and compared."""
    along, line = tmp_path / "runs" / "along", tmp_path / "runs" / "line"
    stop_file, outcome = tmp_path / "stop", tmp_path / "outcome.json"
    env = {"MEGDET_STOP_FILE": str(stop_file), "MEGDET_OUTCOME": str(outcome)}
    scaled = ("data.max_size=48", "data.min_sizes=[40]", "pipeline.max_side=48")
    words = settings(tmp_path, "name=along", "evaluation.untrained=true", *scaled)
    words.append("preflight=always")
    began = time.time()
    done = run_ranks(
        CHECK, 3, "told_in_evaluation", *words, launcher="mpirun", timeout_s=300, env=env
    )
    took_s = time.time() - began
    assert done.returncode != 0, done.stdout
    assert sorted(re.findall(r"RANK \d ends with \d", done.stdout)) == [
        f"RANK {rank} ends with 5" for rank in range(3)
    ]
    assert time.time() - stop_file.stat().st_mtime < 60, f"of {took_s:.0f} s in all"
    told = json.loads(outcome.read_text())
    assert told["code"] == 5 and told["iteration"] == STEPS
    assert "the queue is drained" in told["message"] and "--resume" in told["message"]
    assert "ranks 0-1 train, rank 2 evaluates concurrently" in done.stdout
    assert "prepared by 3 ranks" in done.stdout and "46 pictures read, 0 unchanged" in done.stdout
    assert "30 scaled down for training (pipeline.max_side=48)" in done.stdout
    kept = load_config(along / "config.yaml").data
    assert (kept.kind, kept.train) == ("scenes", ()), "what was prepared is no part of the run"
    assert "devices agree" in done.stdout
    assert evaluations(along) == []
    for file in (stop_file, outcome):
        file.unlink()

    words = ["--resume", str(along), f"learning.max_iterations={STEPS + 1}"]
    module, program = "megdet_hvd.pipeline.__main__", "tests.programs:run_thin"
    # A true launch: an evaluator's process is another one afterwards than the launcher's.
    done = run_ranks(CHECK, 3, "nothing", *words, launcher="mpirun", timeout_s=300, env=env)
    assert done.returncode == 0, done.stdout
    assert json.loads(outcome.read_text())["code"] == 0
    assert "0 pictures read, 46 unchanged since last time, 30 scaled down" in done.stdout
    found = evaluations(along)
    assert [line["iteration"] for line in found] == [0, 3, 5, 6]
    ap = {one["iteration"]: one["AP"] for one in found}
    best = load_checkpoint(along / "checkpoints" / "best.pt")["iteration"]
    assert ap[best] == max(ap[3], ap[5], ap[6])
    left = {path.name for path in (along / "checkpoints").iterdir()}
    assert left == {"best.pt", "iteration_00000006.pt"}
    assert (along / "detections.png").exists() and (along / "curves.png").exists()

    words = settings(tmp_path, "name=line", "evaluation.untrained=true", *scaled)
    words.append("pipeline.evaluators=0")
    ended = on_ranks(program, 2, module, words, timeout_s=300)
    assert ended.values == [0, 0], ended.stdout
    assert "0 pictures read, 46 unchanged" in ended.stdout
    assert found[:3] == evaluations(line), "the same numbers, in the same order"
    assert any(one["AP"] > 0 for one in found)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        pytest.param("prepare", "Fault: in preparing", marks=pytest.mark.tail),
        ("train", "Fault: in training"),
    ],
)
def test_an_exception_in_the_main_work_ends_all(case: str, said: str, tmp_path: Path) -> None:
    words = settings(tmp_path, "name=ends", "evaluation.untrained=false")
    done = run_ranks(CHECK, 3, case, *words, launcher="mpirun", timeout_s=90)
    assert done.returncode != 0, done.stdout
    assert done.stdout.count("Traceback") == 1, "one message"
    # Beside it, if time is left, one line of rank 0's, whose output may be the only one looked at.
    others = re.sub(r"error: rank \d \(\S+\) failed: " + said, "", done.stdout)
    assert others.count(said) == 1, done.stdout


def lost_evaluators(
    case: str, folder: Path
) -> tuple[str, list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """Two ranks train 9 steps, two evaluate; what was said, measured, told and kept as the best."""
    outcome = folder / "outcome.json"
    words = settings(
        folder,
        "name=alone",
        "evaluation.untrained=true",
        "pipeline.evaluators=2",
        "watchdog.seconds=10",
    )
    words = [w for w in words if not w.startswith("learning.max_it")] + [
        "learning.max_iterations=9"
    ]
    env = {"MEGDET_OUTCOME": str(outcome)}
    done = run_ranks(CHECK, 4, case, *words, launcher="mpirun", timeout_s=300, env=env)
    run = folder / "runs" / "alone"
    assert (run / "checkpoints" / "best.pt").exists(), done.stdout
    assert not [*(folder / "runs").glob(".evaluator-*")], "nothing is left behind"
    told = json.loads(outcome.read_text())
    best = load_checkpoint(run / "checkpoints" / "best.pt")
    assert (run / "checkpoints" / "iteration_00000009.pt").exists()
    return done.stdout, evaluations(run), told, best


def test_evaluators_that_fail_and_die_leave_the_trainers_going(tmp_path: Path) -> None:
    """A checkpoint that can't be read, another fault, and kill -9 while the other waits."""
    said, found, told, best = lost_evaluators("fail", tmp_path)
    assert said.count("error: iteration 0 is not evaluated: rank 3: ") == 1, said
    assert "cannot be read (Stale file handle). Training goes on" in said
    assert said.count("iteration 3 is not evaluated: rank 3: KeyError: 'in detecting'") == 1, said
    assert (
        said.count("error: concurrent evaluation has ended: the process of rank 3 has ended") == 1
    )
    assert "evaluates in line from here on; without a result: iterations 5" in said
    assert [line["iteration"] for line in found] == [7, 9]
    assert told["code"] == 0 and told["message"] == "finished after iteration 9"
    ap = {line["iteration"]: line["AP"] for line in found}
    assert ap[best["iteration"]] == max(ap.values()) == best["ap"]
    for rank in (0, 1):
        assert f"RANK {rank} ends with 0" in said
    assert "evaluator, rank 3: its process has ended (signal 9); training goes on" in said


@pytest.mark.tail  # that evaluators fail and die, and training goes on: above
def test_an_evaluator_that_leaves_the_others_waiting_gives_up_for_all(tmp_path: Path) -> None:
    said, found, told, best = lost_evaluators("lonely", tmp_path)
    assert said.count("concurrent evaluation has ended: rank 3: Fault: in evaluating") == 1, said
    assert found[-1]["iteration"] == 9 and len(found) >= 2
    assert told["code"] == 0 and best["ap"] is not None
    assert sorted(re.findall(r"RANK \d ends with \d", said)) == [
        f"RANK {rank} ends with 0" for rank in range(4)
    ]


def test_a_stopped_evaluator_ends_all(tmp_path: Path) -> None:
    words = settings(tmp_path, "name=ends", "evaluation.untrained=true", "watchdog.seconds=5")
    done = run_ranks(CHECK, 3, "stop", *words, launcher="mpirun", timeout_s=200)
    assert done.returncode != 0, done.stdout
    assert done.stdout.count("error: the job hangs and is ended by its watchdog") == 1
    assert "rank 2 (" in done.stdout and "no sign of life for" in done.stdout


def test_a_wrong_start_is_explained(tmp_path: Path) -> None:
    words = settings(tmp_path, "pipeline.evaluators=2")
    done = run_ranks([*PIPELINE, *words], 2, launcher="mpirun", timeout_s=60)
    assert done.returncode == 2, done.stdout
    assert done.stdout.count("pipeline.evaluators=2 of 2 ranks leave none to train") == 1
    assert "mpirun -np 3" in done.stdout and "MPI_ABORT" not in done.stdout
    done = run_ranks([*PIPELINE, *words], 1, launcher="python", timeout_s=60)
    assert done.returncode == 2 and "start it with mpirun" in done.stdout
