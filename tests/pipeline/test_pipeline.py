"""The whole pipeline in real processes: evaluated alongside as in line, and ended by any fault."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from megdet_hvd.checkpoint.file import load_checkpoint
from tests.engine.small import small_settings
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


def test_evaluated_alongside_as_in_line(tmp_path: Path) -> None:
    along, line = tmp_path / "runs" / "along", tmp_path / "runs" / "line"
    words = settings(tmp_path, "name=along", "evaluation.untrained=true")
    done = run_ranks([*PIPELINE, *words], 3, launcher="mpirun", timeout_s=200)
    assert done.returncode == 0, done.stdout
    assert "ranks 0-1 train, 2 evaluate alongside" in done.stdout
    assert "prepared by 3 ranks" in done.stdout and "46 pictures read, 0 unchanged" in done.stdout
    words = settings(tmp_path, "name=line", "evaluation.untrained=true", "pipeline.evaluators=0")
    done = run_ranks([*PIPELINE, *words], 2, launcher="mpirun", timeout_s=200)
    assert done.returncode == 0, done.stdout
    assert "0 pictures read, 46 unchanged" in done.stdout

    found = evaluations(along)
    assert found == evaluations(line), "the same numbers, in the same order"
    assert [line["iteration"] for line in found] == [0, 3, 5]
    assert any(one["AP"] > 0 for one in found)
    ap = {one["iteration"]: one["AP"] for one in found}
    best = load_checkpoint(along / "checkpoints" / "best.pt")["iteration"]
    assert ap[best] == max(ap[3], ap[5])
    left = {path.name for path in (along / "checkpoints").iterdir()}
    assert left == {"best.pt", "iteration_00000005.pt"}
    assert (along / "detections.png").exists() and (along / "curves.png").exists()

    # A run that was stopped before a result came: it is made up for when the run is carried on.
    metrics = along / "metrics.jsonl"
    kept = [one for one in metrics.read_text().splitlines() if '"iteration": 5' not in one]
    metrics.write_text("".join(f"{one}\n" for one in kept))
    shutil.rmtree(along / "tensorboard", ignore_errors=True)
    words = ["--resume", str(along), f"learning.max_iterations={STEPS + 1}"]
    done = run_ranks([*PIPELINE, *words], 3, launcher="mpirun", timeout_s=200)
    assert done.returncode == 0, done.stdout
    again = evaluations(along)
    assert again[:3] == found and [one["iteration"] for one in again] == [0, 3, 5, 6]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("prepare", "Fault: in preparing"),
        ("train", "Fault: in training"),
        ("evaluate", "Fault: in evaluating"),
    ],
)
def test_an_exception_anywhere_ends_all(case: str, said: str, tmp_path: Path) -> None:
    untrained = "true" if case == "evaluate" else "false"
    words = settings(tmp_path, "name=ends", f"evaluation.untrained={untrained}")
    done = run_ranks(CHECK, 3, case, *words, launcher="mpirun", timeout_s=90)
    assert done.returncode != 0, done.stdout
    assert done.stdout.count(said) == 1, done.stdout
    assert done.stdout.count("Traceback") == 1, "one message"


def test_a_stopped_evaluator_ends_all(tmp_path: Path) -> None:
    words = settings(tmp_path, "name=ends", "evaluation.untrained=true", "watchdog.seconds=5")
    done = run_ranks(CHECK, 3, "stop", *words, launcher="mpirun", timeout_s=90)
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
