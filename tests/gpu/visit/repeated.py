"""``deterministic=true``, the same training twice: equal losses and weights, to the bit."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from megdet_hvd.checkpoint.file import load_checkpoint
from tests.engine.small import small_settings
from tests.gpu.visit.parts import Setting
from tests.gpu.visit.record import Value
from tests.ranks import run_ranks

STEPS = 5


def measure(setting: Setting) -> Iterator[tuple[str, Value]]:
    """In float32 and in bfloat16, each in two processes after one another."""
    for precision in ("float32",) if setting.small else ("float32", "bfloat16"):
        runs = [f"{precision}, run {turn}" for turn in (1, 2)]
        folders = [setting.folder / "runs" / f"{precision}{turn}" for turn in (1, 2)]
        for name, folder in zip(runs, folders, strict=True):
            began = time.monotonic()
            yield f"{name}, exit code", trained(setting, precision, folder.name)
            yield f"{name}, s", time.monotonic() - began
        one, other = map(losses_of, folders)
        yield f"{precision}, losses equal to the bit", len(one) == STEPS and one == other
        weights, others = (load_checkpoint(folder)["model"] for folder in folders)
        equal = all(torch.equal(weights[name], others[name]) for name in weights)
        yield f"{precision}, weights equal to the bit", equal


def trained(setting: Setting, precision: str, name: str) -> int:
    """Exit code of a training by the command line."""
    words = small_settings(
        setting.folder, f"device={setting.device}", f"precision={precision}", f"name={name}",
        "deterministic=true", f"learning.max_iterations={STEPS}",
    )  # fmt: skip
    done = run_ranks(["-m", "megdet_hvd.train", *words], 1, launcher="python", timeout_s=90)
    if done.returncode:
        print(done.stdout[-4000:], flush=True)
    return done.returncode


def losses_of(folder: Path) -> list[float]:
    """Of each step."""
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    found = [json.loads(line) for line in text.splitlines()]
    return [line["loss"] for line in found if line["kind"] == "train"]
