"""A run that a former version began goes on to the bit: its checkpoints are made here, by it."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from megdet_hvd.checkpoint.file import load_checkpoint
from megdet_hvd.errors import STOPPED
from megdet_hvd.model.draw_versions import FIRST_DRAW
from tests.engine.small import small_settings
from tests.ranks import ROOT, run_ranks

FORMER = "7e8d8c789c92871eb5058b4625f2bfaa51d44c12"
"""Before the life of a job was written once, and most of the package's modules had other names."""
NORMS = ("cgbn", "bn")
"""With ``bn`` each rank has running statistics of its own, which the checkpoint keeps."""
SCRIPT = Path(__file__).parent / "check_former_run.py"
STEPS, STOPPED_IN = 6, 3  # 27 pictures, batch 12: evaluations after steps 3 and 5, in mid-epoch


def former_package(folder: Path) -> Path:
    """Its sources, below ``folder``. Skips where the clone has them no more."""
    made = folder / "former"
    made.mkdir()
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", FORMER, "megdet_hvd"], capture_output=True
    )
    if archive.returncode != 0:
        pytest.skip(f"not checked: this clone lacks commit {FORMER[:7]} (git fetch --unshallow)")
    subprocess.run(["tar", "-x", "-C", str(made)], input=archive.stdout, check=True)
    return made


def trained(package: Path, *attempts: tuple[str, int, list[str]]) -> str:
    done = run_ranks(
        SCRIPT,
        2,
        package,
        json.dumps(attempts),
        launcher="mpirun",
        env={"PYTHONPATH": str(package)},
        timeout_s=300,
    )
    assert done.stdout.count("ATTEMPT ") == 2 * len(attempts), done.stdout
    return done.stdout


@pytest.mark.tail
@pytest.mark.launch
def test_a_run_that_a_former_version_began_resumes_to_the_bit(tmp_path: Path) -> None:
    former, runs = former_package(tmp_path), tmp_path / "runs"
    settings = small_settings(
        tmp_path,
        "deterministic=true",
        "data.scenes.train_images=27",
        f"learning.max_iterations={STEPS}",
        "evaluation.every_epochs=1",
        "checkpoint.keep=9",
    )
    attempts = []
    for norm in NORMS:
        words = [*settings, f"model.norm={norm}"]
        attempts += [
            (f"whole-{norm}", 0, ["--run", str(runs / f"whole-{norm}"), *words]),
            (f"parts-{norm}", STOPPED_IN, ["--run", str(runs / f"parts-{norm}"), *words]),
        ]
    expected = {f"whole-{norm}": (0, STEPS) for norm in NORMS}
    expected |= {f"parts-{norm}": (STOPPED, STOPPED_IN) for norm in NORMS}
    check_attempts(trained(former, *attempts), expected)

    attempts = [(f"rest-{norm}", 0, ["--run", str(runs / f"parts-{norm}")]) for norm in NORMS]
    expected = {f"rest-{norm}": (0, STEPS - STOPPED_IN) for norm in NORMS}
    check_attempts(trained(ROOT, *attempts), expected)
    for norm in NORMS:
        check_equal(runs / f"whole-{norm}", runs / f"parts-{norm}")


def check_attempts(said: str, expected: dict[str, tuple[int, int]]) -> None:
    """Each attempt's exit code and steps, on both ranks."""
    found = re.findall(r"ATTEMPT (\S+) exit (\d+) after (\d+) steps", said)
    assert sorted((name, (int(code), int(steps))) for name, code, steps in found) == sorted(
        [*expected.items()] * 2
    ), said


def check_equal(whole: Path, parts: Path) -> None:
    names = {path.name for path in (whole / "checkpoints").iterdir()}
    assert {f"iteration_{STEPS:08d}.pt", "best.pt"} < names
    stopped = {f"iteration_{STOPPED_IN:08d}.pt"}
    assert {path.name for path in (parts / "checkpoints").iterdir()} == names | stopped
    for name in sorted(names):
        theirs = load_checkpoint(whole / "checkpoints" / name)
        ours = load_checkpoint(parts / "checkpoints" / name)
        if name == f"iteration_{STEPS:08d}.pt":  # which draw it was, former ones don't say
            assert "draw_version" not in theirs and ours["draw_version"] == FIRST_DRAW
        del theirs["config"]  # ours has the settings that have come since, too
        different = [found for key in theirs for found in differences(theirs[key], ours[key], key)]
        assert not different, f"{parts.name} {name}: {len(different)} differ, {different[:5]}"
    then, now = numbers(whole), numbers(parts)  # lines may say more than then, and no less
    assert then == [
        {key: line.get(key) for key in known} for known, line in zip(then, now, strict=True)
    ]


def differences(theirs: Any, ours: Any, where: str) -> list[str]:
    """Paths below ``where`` at which two checkpoints hold other values or other bits."""
    if isinstance(theirs, torch.Tensor):
        same = isinstance(ours, torch.Tensor) and theirs.dtype == ours.dtype
        return [] if same and torch.equal(theirs, ours) else [where]
    if isinstance(theirs, dict):
        if not isinstance(ours, dict) or theirs.keys() != ours.keys():
            return [where]
        return [d for k in theirs for d in differences(theirs[k], ours[k], f"{where}.{k}")]
    if isinstance(theirs, list | tuple):
        if type(theirs) is not type(ours) or len(theirs) != len(ours):
            return [where]
        pairs = enumerate(zip(theirs, ours, strict=True))
        return [d for k, (a, b) in pairs for d in differences(a, b, f"{where}.{k}")]
    return [] if repr(theirs) == repr(ours) else [where]


def numbers(run: Path) -> list[dict[str, Any]]:
    """What the metrics of steps and evaluations say, without times."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    assert [line["iteration"] for line in found if line["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    times = ("_s", "per_second", "memory")
    return [{k: v for k, v in line.items() if not k.endswith(times)} for line in found]


def test_differences_are_found() -> None:
    one = {"a": [torch.tensor([0.0, 1.0])], "b": (1, 2.0), "c": None}
    assert differences(one, {"a": [torch.tensor([0.0, 1.0])], "b": (1, 2.0), "c": None}, "x") == []
    assert differences(one, {"a": [torch.tensor([0.0, 2.0])], "b": (1, 2), "c": 0}, "x") == [
        "x.a.0",
        "x.b.1",
        "x.c",
    ]
    assert differences(one, {"a": [torch.tensor([0.0, 1.0], dtype=torch.float64)]}, "x") == ["x"]
    assert differences(one["a"], [torch.tensor([0.0, 1.0], dtype=torch.float64)], "x") == ["x.0"]
