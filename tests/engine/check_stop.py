"""Called by two ranks: a run stopped in every way there is, against one that was not stopped.

Each rank prints a line for each attempt: its name and exit code.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from megdet_hvd.checkpoint.file import load_checkpoint
from megdet_hvd.cluster.launch import read_launch
from megdet_hvd.comm.position import go_outside
from megdet_hvd.engine.step.loop import describe_images
from megdet_hvd.engine.step.optimizer import set_rate
from megdet_hvd.evaluate import main as evaluate
from megdet_hvd.job import stopping
from megdet_hvd.train import main as train
from tests.engine.small import small_and_quiet, small_settings

STEPS = 6  # 27 pictures, batch 12: an evaluation after steps 3 and 5, in mid-epoch
RANK = read_launch(os.environ).rank or 0

images: dict[str, list[str]] = {}
"""What each attempt saw, step by step: an independent record of the order of pictures."""


@contextmanager
def signal_in_step(step: int, number: signal.Signals, rank: int) -> Iterator[None]:
    """The signal comes to one rank, when the attempt's ``step`` begins."""
    begun = 0

    def begin(optimizer: Any, rate: float) -> None:
        nonlocal begun
        begun += 1
        if begun == step and rank == RANK:
            os.kill(os.getpid(), number)
        set_rate(optimizer, rate)

    with mock.patch("megdet_hvd.engine.step.loop.set_rate", begin):
        yield


@contextmanager
def signal_in_evaluation(rank: int) -> Iterator[None]:
    """SIGTERM comes to one rank in its first batch."""

    def outside(what: str) -> None:
        if rank == RANK:
            os.kill(os.getpid(), signal.SIGTERM)
            # It may have met a thread that has to wait for a core; there are few batches.
            end = time.monotonic() + 20
            while stopping.wanted() is None and time.monotonic() < end:
                time.sleep(0.01)
        go_outside(what)

    with mock.patch("megdet_hvd.evaluation.inference.go_outside", outside):
        yield


def attempt(folder: Path, name: str, program: Any, words: list[str], *disturbances: Any) -> None:
    """Run it; its outcome is in a file of this name, its code on standard output."""

    def described(batches: Any) -> str:
        images.setdefault(name, []).append(
            " ".join(str(info.image_id) for batch in batches for info in batch.infos)
        )
        return describe_images(batches)

    os.environ["MEGDET_OUTCOME"] = str(folder / f"{name}.json")
    with ExitStack() as stack:
        stack.enter_context(mock.patch("megdet_hvd.engine.step.loop.describe_images", described))
        for disturbance in disturbances:
            stack.enter_context(disturbance)
        code = program(words)
    sys.stdout.write(f"ATTEMPT {name} exit {code}\n")
    sys.stdout.flush()


def stopped_in_every_way(path: str) -> None:
    """All runs are below ``path``."""
    images.clear()
    with small_and_quiet():
        _stopped(Path(path))


def _stopped(folder: Path) -> None:
    runs = folder / "runs"
    parts, stop_file = runs / "parts", folder / "stop now"
    os.environ["MEGDET_STOP_FILE"] = str(stop_file)
    settings = small_settings(
        folder,
        "deterministic=true",
        f"learning.max_iterations={STEPS}",
        "evaluation.every_epochs=1",
        "checkpoint.keep=9",
    )
    attempt(folder, "whole", train, ["--run", str(runs / "whole"), *settings])
    carry_on = ["--run", str(parts)]
    attempt(
        folder, "usr1", train, [*carry_on, *settings], signal_in_step(2, signal.SIGUSR1, rank=1)
    )
    attempt(folder, "evaluating", train, carry_on, signal_in_evaluation(rank=0))
    if RANK == 0:
        stop_file.write_text("the queue is drained")
    attempt(folder, "file", train, carry_on)
    if RANK == 0:
        stop_file.unlink()
    attempt(folder, "term", train, carry_on, signal_in_step(1, signal.SIGTERM, rank=1))
    attempt(folder, "rest", train, carry_on)
    attempt(
        folder,
        "evaluate",
        evaluate,
        # Several batches a rank: with its last one an evaluation is done, stopped or not.
        ["--checkpoint", str(parts), "evaluation.images_per_process=1"],
        signal_in_evaluation(rank=1),
    )
    attempt(folder, "both", train, [*carry_on, "--resume"])
    (folder / f"images_{RANK}.json").write_text(json.dumps(images))
    if RANK == 0:
        compare(runs / "whole", parts)


def compare(whole: Path, parts: Path) -> None:
    for name in (f"iteration_{STEPS:08d}.pt", "iteration_00000003.pt", "best.pt"):
        theirs = load_checkpoint(whole / "checkpoints" / name)
        ours = load_checkpoint(parts / "checkpoints" / name)
        assert ours["iteration"] == theirs["iteration"], name
        assert (ours["ap"], ours["best_ap"]) == (theirs["ap"], theirs["best_ap"]), name
        assert not ours["evaluation_due"]
        assert all(torch.equal(v, theirs["model"][n]) for n, v in ours["model"].items()), name
        for n, state in theirs["optimizer"]["state"].items():
            momentum = ours["optimizer"]["state"][n]["momentum_buffer"]
            assert torch.equal(momentum, state["momentum_buffer"]), name
    assert numbers(whole) == numbers(parts)
    print("EQUAL bit for bit", flush=True)


def numbers(run: Path) -> list[Any]:
    """What metrics say, without times."""
    found = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        timed = {"slowest_rank", *(key for key in record if key.endswith("_s"))}
        found.append({key: value for key, value in record.items() if key not in timed})
    return found
