import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from megdet_hvd.checkpoint.file import load_checkpoint
from megdet_hvd.checkpoint.naming import list_checkpoints
from tests.engine.small import small_settings
from tests.pool import on_ranks
from tests.ranks import ROOT, run_ranks

TRAIN = ["-m", "megdet_hvd.train"]


def said(program: str, *words: object) -> str:
    """The output of a program of one process, which ends well."""
    module = f"megdet_hvd.{program}"
    done = on_ranks("tests.programs:run", 1, module, [*map(str, words)], launcher="python")
    assert done.values == [0], done.stdout
    return done.stdout


def test_one_run_from_start_through_resume_to_evaluation(tmp_path: Path) -> None:
    """Two processes train, carry on as one (the batch stays), and evaluate to the same numbers."""
    settings = small_settings(
        tmp_path,
        "name=a run",
        "log.tensorboard=true",
        "learning.max_iterations=2",
        "evaluation.every_epochs=1",
    )
    done = run_ranks([*TRAIN, *settings], 2, launcher="horovodrun")
    assert done.returncode == 0, done.stdout
    assert "global batch 12 = 2 processes × 6 images × 1 pass" in done.stdout
    assert re.search(r"CGBN: 20 layers share statistics over ranks 0-1 .*12 images", done.stdout)
    assert "gradients go once all are ready: no BN sum waits behind one" in done.stdout
    assert done.stdout.count("iteration 2/2") == 1, "only rank 0 speaks"
    folder = tmp_path / "runs" / "a run"
    assert load_checkpoint(folder)["world"] == 2

    text = said("train", "--resume", folder, "learning.max_iterations=4", "log.tensorboard=false")
    assert "carrying on after iteration 2" in text
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line["iteration"] for line in lines if line["kind"] == "train"]
    assert steps == [1, 2, 3, 4]
    assert all(line["images_per_s"] > 0 and line["loss"] > 0 for line in lines if "loss" in line)
    for picture in ("curves.png", "detections.png"):
        assert min(Image.open(folder / picture).size) > 200
    assert list((folder / "tensorboard").iterdir())

    last = [line for line in lines if line["kind"] == "eval"][-1]
    assert last["iteration"] == 4
    text = said("evaluate", "--checkpoint", folder)
    shown = re.search(r"AP    IoU 0.50:0.95\s+([\d.]+)", text)
    assert shown is not None and abs(float(shown[1]) - last["AP"]) < 1e-3, text


def test_a_run_killed_in_mid_run_carries_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    settings = small_settings(
        tmp_path, "name=k", "checkpoint.every_iterations=1", "learning.max_iterations=400"
    )
    folder = tmp_path / "runs" / "k"
    command = [sys.executable, *TRAIN, *settings, "deterministic=true"]
    # Bit for bit means the same number of threads too, and a pool gives each process one.
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, env=one_thread) as running:
        deadline = time.monotonic() + 120
        while len(list_checkpoints(folder / "checkpoints")) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(signal.SIGKILL)
    reached = load_checkpoint(folder)["iteration"]
    assert 2 <= reached < 400
    said("train", "--resume", folder, f"learning.max_iterations={reached + 1}")
    whole = ["name=w", f"learning.max_iterations={reached + 1}", "deterministic=true"]
    said("train", *small_settings(tmp_path, *whole))
    ours, theirs = load_checkpoint(folder), load_checkpoint(tmp_path / "runs" / "w")
    assert ours["iteration"] == theirs["iteration"] == reached + 1
    assert all(torch.equal(v, theirs["model"][n]) for n, v in ours["model"].items())


@pytest.mark.tail
def test_eight_processes_on_however_few_cores(tmp_path: Path) -> None:
    settings = small_settings(
        tmp_path, "name=eight", "global_batch=8", "learning.max_iterations=1", "data.min_sizes=[48]"
    )
    done = run_ranks([*TRAIN, *settings], 8, launcher="horovodrun", timeout_s=400)
    assert done.returncode == 0, done.stdout
    assert "global batch 8 = 8 processes × 1 image × 1 pass" in done.stdout
    assert "device cpu, 1 thread a process" in done.stdout
    assert load_checkpoint(tmp_path / "runs" / "eight")["iteration"] == 1
