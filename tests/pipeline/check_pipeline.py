"""Run by several ranks: the pipeline, in which one rank does something. Argument 1: what.

The rest is its command line.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

from megdet_hvd.cluster.driver_variables import STOP_FILE
from megdet_hvd.engine.step.loop import apply_gradients
from megdet_hvd.errors import UserError
from megdet_hvd.evaluation.evaluate import evaluate_detector
from megdet_hvd.evaluation.gather import gather_detections
from megdet_hvd.evaluation.inference import detect
from megdet_hvd.evaluation.trained import read_trained
from megdet_hvd.job import stopping
from megdet_hvd.pipeline.__main__ import main
from megdet_hvd.pipeline.picture import prepare_picture
from tests.engine.small import thin_backbones

RANK = int(os.environ["OMPI_COMM_WORLD_RANK"])


class Fault(Exception):
    """Injected."""


def bad_picture(*args: Any) -> Any:
    if RANK == 2:
        raise Fault("in preparing")
    return prepare_picture(*args)


def bad_step(*args: Any) -> Any:
    if RANK == 1 and args[-1] == 2:
        raise Fault("in training")
    return apply_gradients(*args)


evaluations = 0


def failing_evaluation(*args: Any, **more: Any) -> Any:
    """On one evaluator of two: a stale file, another fault, and its death."""
    global evaluations
    evaluations += 1
    if RANK == 3 and evaluations == 1:
        raise KeyError("in detecting")
    if RANK == 3 and evaluations == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return detect(*args, **more)


def stale_checkpoint(path: Path) -> Any:
    if RANK == 3 and path.name == "iteration_00000000.pt":
        raise UserError(f"{path}: cannot be read (Stale file handle)")
    return read_trained(path)


def slow_step(*args: Any) -> Any:
    """Time for rank 0 to see that an evaluator has died."""
    if args[-1] == 6:
        time.sleep(15)
    return apply_gradients(*args)


def lonely_fault(*args: Any) -> Any:
    """On one evaluator, while the other waits for it."""
    if RANK == 3:
        raise Fault("in evaluating")
    return gather_detections(*args)


def stopped_evaluation(*args: Any, **more: Any) -> Any:
    os.kill(os.getpid(), signal.SIGSTOP)
    return evaluate_detector(*args, **more)


def wait_until(there: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not there():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.02)


def evaluation_in_a_stop(*args: Any, **more: Any) -> Any:
    """Training is over, nothing has been evaluated, and the job shall stop."""
    output = next(word for word in sys.argv if word.startswith("output=")).partition("=")[2]
    wait_until(lambda: [*Path(output).glob("*/checkpoints/iteration_00000005.pt")])
    Path(os.environ[STOP_FILE]).write_text("the queue is drained")
    wait_until(stopping.wanted)
    return evaluate_detector(*args, **more)


EVALUATE = "megdet_hvd.pipeline.evaluator.evaluate_detector"
CASES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "prepare": {"megdet_hvd.pipeline.prepare.prepare_picture": bad_picture},
    "train": {"megdet_hvd.engine.step.loop.apply_gradients": bad_step},
    "fail": {
        "megdet_hvd.pipeline.evaluator.read_trained": stale_checkpoint,
        "megdet_hvd.evaluation.evaluate.detect": failing_evaluation,
        "megdet_hvd.engine.step.loop.apply_gradients": slow_step,
    },
    "lonely": {
        "megdet_hvd.evaluation.evaluate.gather_detections": lonely_fault,
        "megdet_hvd.engine.step.loop.apply_gradients": slow_step,
    },
    "stop": {EVALUATE: stopped_evaluation},
    "told_in_evaluation": {EVALUATE: evaluation_in_a_stop},
}

if __name__ == "__main__":
    with ExitStack() as patched:
        patched.enter_context(thin_backbones())
        for name, value in CASES[sys.argv[1]].items():
            patched.enter_context(mock.patch(name, value))
        code = main(sys.argv[2:])
    print(f"RANK {RANK} ends with {code}", flush=True)
    sys.exit(code)
