"""Called by 2 ranks with HOROVOD_TIMELINE set: some steps of a small network with CGBN."""

import time

import torch
from torch import nn

from megdet_hvd.bn import convert_cross_gpu_bn
from megdet_hvd.job.session import start, stop

STEPS = 4


def steps() -> None:
    start()
    model = convert_cross_gpu_bn(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    )
    for _ in range(STEPS):
        model(torch.randn(2, 3, 8, 8)).square().sum().backward()
    time.sleep(1)  # the timeline's writer drops what it has not written when Horovod stops
    stop()
