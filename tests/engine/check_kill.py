"""Run by two ranks: rank 1 is killed in its third step, in the sum of one BN layer."""

import os
import signal
import sys
import time
from pathlib import Path
from unittest import mock

from megdet_hvd.cluster.launch import read_launch
from megdet_hvd.comm.position import place, waiting
from megdet_hvd.train import main
from tests.engine.small import small_settings, thin_backbones

LAYER = "cgbn.backbone.body.layer1.0.bn1.forward.0"
enter = waiting.__enter__


def enter_or_die(self: waiting) -> None:
    enter(self)
    now, step, _ = place()
    if now.name == LAYER and step == 3 and read_launch(os.environ).rank == 1:
        time.sleep(2.0)  # two beats: rank 0 hears of the place
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    with thin_backbones(), mock.patch.object(waiting, "__enter__", enter_or_die):
        sys.exit(main(small_settings(Path(sys.argv[1]), "name=killed", "data.workers=1")))
