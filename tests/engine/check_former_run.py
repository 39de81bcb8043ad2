"""Called by two ranks, with the package of a former commit and with today's: trains small runs.

``check_former_run.py FOLDER of the package  ATTEMPTS``: ATTEMPTS is JSON, a list of (name, step in
which rank 1 is sent SIGTERM or 0, words of the command line). Each rank prints a line for each
attempt: its name and exit code. Imports nothing of ``tests``, which knows today's package only.
"""

import json
import os
import signal
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

from torchvision.models.resnet import ResNet

import megdet_hvd
from megdet_hvd.cluster.launch import read_launch
from megdet_hvd.train import main as train


def attempt(name: str, stopped_in: int, words: list[str]) -> None:
    steps = next(n for n in ("engine.step.loop", "engine.loop") if found(f"megdet_hvd.{n}"))
    set_rate = f"megdet_hvd.{steps}.set_rate"
    rank = read_launch(os.environ).rank
    make_layer: Any = ResNet._make_layer
    begun = 0

    def begin(optimizer: Any, rate: float) -> None:
        nonlocal begun
        begun += 1
        if begun == stopped_in and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        for group in optimizer.param_groups:
            group["lr"] = rate

    def thin(self: ResNet, block: Any, planes: int, *arguments: Any, **words: Any) -> Any:
        return make_layer(self, block, planes // 8, *arguments, **words)

    with ExitStack() as stack:
        for what, instead in (
            ("torchvision.models.resnet.ResNet._make_layer", thin),
            ("megdet_hvd.engine.run.RunPictures.draw", mock.Mock()),
            ("megdet_hvd.engine.run.RunPictures.draw_curves", mock.Mock()),
            (set_rate, begin),
        ):
            stack.enter_context(mock.patch(what, instead))
        code = train(words)
    sys.stdout.write(f"ATTEMPT {name} exit {code} after {begun} steps\n")
    sys.stdout.flush()


def found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    package = Path(str(megdet_hvd.__file__)).resolve().parent.parent
    assert package == Path(sys.argv[1]).resolve(), f"{package} is the package, not {sys.argv[1]}"
    for one in json.loads(sys.argv[2]):
        attempt(*one)
