"""Runs carried on with another number of processes, against one that was not interrupted.

Where the BN size stays, each statistic is of the same pictures, and so is each step: all that
differs is the order in which float64 numbers are added, some 1e5 of them at 1e-16 each, and what
a network with BN makes of that. TOLERANCE is far above it, and far below what any picture, rate
or statistic of another kind would make: a BN size of 8 instead of 4 is off by more than 1e-3.
The pictures of scenes.size=64 all lie on one canvas of 64 × 64, so that none is padded otherwise
when other pictures share its process.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from megdet_hvd.checkpoint.facts import read_saved_layout
from megdet_hvd.checkpoint.file import load_checkpoint
from megdet_hvd.checkpoint.naming import checkpoint_name
from megdet_hvd.config.saved_layout import SavedLayout, saved_layout_of
from tests.engine.small import SETTINGS
from tests.pool import on_ranks
from tests.ranks import Launcher

STEPS, STOPPED_AT, BATCH = 5, 3, 8  # 30 pictures: step 4 straddles two epochs
TOLERANCE = 1e-9
"""Of the largest number of each tensor."""

WORDS = " ".join(
    [
        *SETTINGS,
        f"global_batch={BATCH}",
        "data.min_sizes=[48]",
        "data.max_size=64",
        "data.scenes.cache=@FOLDER/cache",
        "output=@FOLDER/runs",
        "deterministic=true",
        f"learning.max_iterations={STEPS}",
        f"checkpoint.every_iterations={STOPPED_AT}",
        "checkpoint.every_epochs=0",
        "evaluation.max_images=1",
    ]
)
RESUME = "--resume @FOLDER/runs/"


def launch(folder: Path, np: int, *lines: str, launcher: Launcher = "mpirun", **env: str) -> str:
    check = "tests.engine.check_elastic_resume:run_lines"
    done = on_ranks(check, np, folder, lines, launcher=launcher, timeout_s=300, env=env)
    return done.stdout


def _copy(source: str, target: str) -> None:
    """Checkpoints are never changed in place, other files of a run are."""
    (os.link if source.endswith(".pt") else shutil.copyfile)(source, target)


def stopped(folder: Path, run: str, *names: str) -> None:
    """Copies of a finished run as it was after STOPPED_AT steps."""
    for name in names:
        newer = shutil.ignore_patterns(checkpoint_name(STEPS), "best.pt")
        shutil.copytree(
            folder / "runs" / run, folder / "runs" / name, ignore=newer, copy_function=_copy
        )


def weights(folder: Path, run: str, *, statistics: bool) -> dict[str, torch.Tensor]:
    content = load_checkpoint(folder / "runs" / run)
    assert content["iteration"] == STEPS and content["images_seen"] == STEPS * BATCH
    momentum = content["optimizer"]["state"]
    flat = {f"momentum.{k}": v["momentum_buffer"] for k, v in momentum.items()}
    model = {n: v for n, v in content["model"].items() if statistics or ".running_" not in n}
    found = {**model, **flat}
    return {n: v for n, v in found.items() if v.is_floating_point()}


def difference(folder: Path, one: str, other: str, *, statistics: bool) -> float:
    """The largest of any tensor, relative to its largest number."""
    ours = weights(folder, one, statistics=statistics)
    theirs = weights(folder, other, statistics=statistics)
    assert ours.keys() == theirs.keys() and len(ours) > 100
    assert all(v.dtype == torch.float64 for v in ours.values())
    return max(
        float((v - theirs[n]).abs().max() / theirs[n].abs().max().clamp_min(1e-30))
        for n, v in ours.items()
    )


def pictures(folder: Path, run: str, processes: int, step: int) -> list[Any]:
    """Of one step, in the order of passes and ranks."""
    ranks = [
        json.loads((folder / "seen" / f"{run}-{step}-{rank}-{processes}.json").read_text())
        for rank in range(processes)
    ]
    return [picture for passes in zip(*ranks, strict=True) for rank in passes for picture in rank]


def rates(folder: Path, run: str) -> list[tuple[int, float]]:
    lines = (folder / "runs" / run / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [(line["iteration"], line["rate"]) for line in found if line["kind"] == "train"]


def check_same(
    folder: Path, run: str, processes: int, whole: str, of: int, *, statistics: bool
) -> None:
    off = difference(folder, run, whole, statistics=statistics)
    assert 0 < off < TOLERANCE, f"{run} against {whole}: {off:.1e}"
    assert rates(folder, run) == rates(folder, whole)
    assert len(rates(folder, run)) == STEPS and len({rate for _, rate in rates(folder, run)}) > 1
    for step in range(STOPPED_AT + 1, STEPS + 1):
        seen = pictures(folder, run, processes, step)
        assert len(seen) == BATCH and seen == pictures(folder, whole, of, step), step


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Everything is trained once; the checks below look at what came of it."""
    folder = tmp_path_factory.mktemp("elastic")
    said = {}
    launch(
        folder,
        4,
        f"0,0,1,1 {WORDS} name=two-machines",
        f"0,0,0,0 {WORDS} name=one-machine",
    )
    stopped(folder, "two-machines", "4to2")
    stopped(folder, "one-machine", "4to2-one", "4to2-apart", "4to2-refused")
    said["2"] = launch(
        folder,
        2,
        f"0,0 {RESUME}4to2",
        f"0,0 {RESUME}4to2-one",
        f"0,1 {RESUME}4to2-apart resume.other_bn_size=continue learning.max_iterations=4",
        f"0,0 {WORDS} name=passes learning.accumulation=2",
    )
    stopped(folder, "passes", "2to4", "2to4-one")
    said["4"] = launch(folder, 4, f"0,0,1,1 {RESUME}2to4", f"0,0,0,0 {RESUME}2to4-one")
    said["refused"] = launch(
        folder,
        2,
        f"0,1 {RESUME}4to2-refused",
        f"0,1 {RESUME}4to2-refused learning.decay_bn=false learning.weight_decay=0.1",
        launcher="gloo",
        MEGDET_BLIND="1",
    )
    return folder, said


def test_four_go_on_as_two_with_more_passes(runs: tuple[Path, dict[str, str]]) -> None:
    folder, said = runs
    assert (
        "resumed on 2 processes instead of 4: global batch 8 = 2 × 2 images × 2 passes "
        "(was 4 × 2 × 1)" in said["2"]
    )
    assert "BN size kept: 4 = 2 processes × 2 images" in said["2"]
    assert read_saved_layout(folder / "runs" / "4to2") == SavedLayout(8, 2, 2, "cgbn", (4,))
    # Running statistics are updated in each pass, and so are twice as quick to follow.
    check_same(folder, "4to2", 2, "two-machines", 4, statistics=False)


def test_four_go_on_as_two_with_more_images(runs: tuple[Path, dict[str, str]]) -> None:
    folder, said = runs
    assert "global batch 8 = 2 × 4 images × 1 pass (was 4 × 2 × 1)" in said["2"]
    assert "a process holds 4 images in a pass, 2 before" in said["2"]
    assert "BN size kept: 8 = 2 processes × 4 images" in said["2"]
    check_same(folder, "4to2-one", 2, "one-machine", 4, statistics=True)


@pytest.mark.parametrize("run", ["2to4", "2to4-one"])
def test_two_go_on_as_four(runs: tuple[Path, dict[str, str]], run: str) -> None:
    folder, said = runs
    assert "resumed on 4 processes instead of 2" in said["4"]
    kept = "BN size kept: 4 = 2 processes × 2 images"
    assert f"{kept}\n" in said["4"] and f"{kept} (bn.size=4)" in said["4"]
    assert read_saved_layout(folder / "runs" / run) == SavedLayout(8, 4, 1, "cgbn", (4,))
    check_same(folder, run, 4, "passes", 2, statistics=False)


def test_another_bn_size_is_refused(runs: tuple[Path, dict[str, str]]) -> None:
    """By all ranks alike, though only rank 0 sees the checkpoint."""
    folder, said = runs
    assert said["refused"].count("4to2-refused ended with 2") == 4
    assert said["refused"].count("error: resume: learning.decay_bn was true in the checkpoint") == 1
    assert "Traceback" not in said["refused"]
    assert (
        "error: resumed on 2 processes instead of 4: global batch 8 = 2 × 2 images × 2 passes "
        "(was 4 × 2 × 1); BN size changes from 8 to 2, each process its own 2 images "
        "(bn.scope=machine); bn.scope=world bn.size=8 would keep it." in said["refused"]
    )
    assert "resume.other_bn_size=continue" in said["refused"]
    assert load_checkpoint(folder / "runs" / "4to2-refused")["iteration"] == STOPPED_AT


def test_another_bn_size_goes_on_where_it_may(runs: tuple[Path, dict[str, str]]) -> None:
    folder, said = runs
    warning = "warning: BN size changes from 8 to 2, each process its own 2 images"
    assert said["2"].count(warning) == 1
    assert warning in (folder / "runs" / "4to2-apart" / "log.txt").read_text()
    content = load_checkpoint(folder / "runs" / "4to2-apart")
    assert content["iteration"] == 4 and saved_layout_of(content).bn_images == (2,)


def test_the_comparison_would_notice_another_bn_size(runs: tuple[Path, dict[str, str]]) -> None:
    assert difference(runs[0], "two-machines", "one-machine", statistics=False) > 1e-3
