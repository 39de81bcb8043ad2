"""Run by several ranks: the pipeline, in which one rank does something. Argument 1: what.

The rest is its command line.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from megdet_hvd.cluster.handover import STOP_FILE
from megdet_hvd.comm import stopping
from megdet_hvd.engine.loop import apply_gradients
from megdet_hvd.evaluation.evaluate import evaluate_detector
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


def bad_step(*args: Any) -> None:
    if RANK == 1 and args[-1] == 2:
        raise Fault("in training")
    apply_gradients(*args)


def bad_evaluation(*args: Any) -> Any:
    raise Fault("in evaluating")


def stopped_evaluation(*args: Any) -> Any:
    os.kill(os.getpid(), signal.SIGSTOP)
    return evaluate_detector(*args)


def wait_until(there: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not there():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.02)


def evaluation_in_a_stop(*args: Any) -> Any:
    """Training is over, nothing has been evaluated, and the job shall stop."""
    output = next(word for word in sys.argv if word.startswith("output=")).partition("=")[2]
    wait_until(lambda: [*Path(output).glob("*/checkpoints/iteration_00000005.pt")])
    Path(os.environ[STOP_FILE]).write_text("the queue is drained")
    wait_until(stopping.wanted)
    return evaluate_detector(*args)


CASES = {
    "prepare": ("megdet_hvd.pipeline.prepare.prepare_picture", bad_picture),
    "train": ("megdet_hvd.engine.loop.apply_gradients", bad_step),
    "evaluate": ("megdet_hvd.pipeline.evaluator.evaluate_detector", bad_evaluation),
    "stop": ("megdet_hvd.pipeline.evaluator.evaluate_detector", stopped_evaluation),
    "wish": ("megdet_hvd.pipeline.evaluator.evaluate_detector", evaluation_in_a_stop),
}

if __name__ == "__main__":
    with thin_backbones(), mock.patch(*CASES[sys.argv[1]]):
        code = main(sys.argv[2:])
    print(f"RANK {RANK} ends with {code}", flush=True)
    sys.exit(code)
