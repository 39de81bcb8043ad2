"""One process: runs in which files may not grow beyond a few bytes for a while.

Argument: a folder. A limit of the process makes real write errors, as a full disk does.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any
from unittest import mock

from megdet_hvd.engine.step.optimizer import set_rate
from megdet_hvd.train import main as train
from tests.engine.small import small_settings, thin_backbones

NOTHING_FITS_BYTES = 100
NO_CHECKPOINT_FITS_BYTES = 100_000
_, HARD = resource.getrlimit(resource.RLIMIT_FSIZE)


def limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, HARD))


def attempt(name: str, begin_step: Callable[[int], None], *more: str) -> None:
    """Train four steps with a checkpoint after each; ``begin_step`` is called in each."""
    folder = Path(sys.argv[1])
    os.environ["MEGDET_OUTCOME"] = str(folder / f"{name}.json")
    steps = 0

    def begin(optimizer: Any, rate: float) -> None:
        nonlocal steps
        steps += 1
        begin_step(steps)
        set_rate(optimizer, rate)

    settings = ["learning.max_iterations=4", "checkpoint.every_iterations=1", *more]
    print(f"ATTEMPT {name} begins", flush=True)
    with thin_backbones(), mock.patch("megdet_hvd.engine.step.loop.set_rate", begin):
        code = train(["--run", str(folder / "runs" / name), *small_settings(folder, *settings)])
    limit(HARD)
    print(f"ended with {code}", flush=True)


def full_in(steps: Collection[int], size: int) -> Callable[[int], None]:
    return lambda step: limit(size if step in steps else HARD)


def term_in_2(step: int) -> None:
    if step == 2:
        os.kill(os.getpid(), signal.SIGTERM)


def full_and_term_in_2(step: int) -> None:
    term_in_2(step)
    full_in([2], NO_CHECKPOINT_FITS_BYTES)(step)


def fault_in_2(step: int) -> None:
    if step == 2:
        raise ZeroDivisionError("a fault in a step")


def main() -> None:
    attempt("continue", full_in([2, 3], NOTHING_FITS_BYTES), "log.tensorboard=true")
    full_in_2 = full_in([2], NO_CHECKPOINT_FITS_BYTES)
    attempt("stop", full_in_2, "checkpoint.on_error=stop")
    attempt("last", full_in_2, "learning.max_iterations=2")
    attempt("requested", full_and_term_in_2)
    attempt("term", term_in_2)
    begun = Path(sys.argv[1]) / "runs" / "anew"
    (begun / "checkpoints").mkdir(parents=True)
    (begun / "config.yaml").write_text("seed: 5\n")
    (begun / "metrics.jsonl").write_text('{"kind": "train", "iteration": 1, "loss": 9}\n')
    attempt("anew", lambda step: None, "learning.max_iterations=1")
    attempt("fault", fault_in_2)


if __name__ == "__main__":
    main()
