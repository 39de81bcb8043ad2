"""Where a run stands, read from its folder without Slurm."""

import json
from pathlib import Path
from typing import Any

import pytest

from megdet_hvd.errors import UserError
from megdet_hvd.submit.status import status


def line(iteration: int, **values: Any) -> str:
    """Of a run of 10 iterations an epoch, 16 pictures each."""
    numbers = {"epoch": iteration / 10, "images_seen": 16 * iteration, "step_s": 2.0}
    return json.dumps({"kind": "train", "iteration": iteration, **numbers, **values}) + "\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a configuration of 16 pictures a step, for 20 epochs."""
    (tmp_path / "config.yaml").write_text(
        "global_batch: 16\nlearning: {policy: custom, epochs: 20}\n"
    )
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


def test_a_run_without_metrics(run: Path) -> None:
    assert status(str(run), run.parent)[1:] == [
        "no metrics yet: not started, or still before its first lines",
        "no checkpoint yet",
    ]


def test_how_far_it_is(run: Path) -> None:
    metrics = run / "metrics.jsonl"
    evaluations = [
        json.dumps({"kind": "eval", "iteration": n, "AP": ap}) + "\n"
        for n, ap in ((10, 0.2), (20, 0.3), (30, 0.25))
    ]
    metrics.write_text(line(30, loss=1.25, rate=0.02, images_per_s=8.0) + "".join(evaluations))
    (run / "checkpoints" / "iteration_00000030.pt").write_bytes(b"x")
    (run / "checkpoints" / "best.pt").write_bytes(b"x")
    first, *told = status(run.name, run.parent)
    assert first == f"run {run.absolute()}"
    assert told[0].startswith("iteration 30 of 200 (15.0 %), ")
    assert told[0].endswith(" of training left at this speed")
    assert told[1] == "loss 1.250, 8.0 images/s, rate 0.0200"
    assert told[2] == "mmAP 0.250 at iteration 30, best 0.300 at 20"
    assert told[3].startswith("newest checkpoint: iteration_00000030.pt, ")
    assert told[3].endswith(" old, and best.pt")


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        (
            "learning: {policy: custom, epochs: 20, max_iterations: 40}",
            "iteration 30 of 40 (75.0 %), ",
        ),
        ("learning: {policy: custom, epochs: 3}", "iteration 30 of 30 (100.0 %), done"),
        ("nonsense: 1", "iteration 30, epoch 3.00"),
    ],
)
def test_where_it_ends_is_its_configurations_to_say(run: Path, config: str, shown: str) -> None:
    (run / "config.yaml").write_text(f"global_batch: 16\n{config}\n")
    (run / "metrics.jsonl").write_text(line(30) + '{"torn\n' * 3)
    assert status(str(run), run.parent)[1].startswith(shown)


def test_no_folder_and_no_job(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder, and no job's number"):
        status("away", tmp_path)
