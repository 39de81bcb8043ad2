"""How often a training step makes the host wait for the device, and how many kernels it starts.

Counted in the second step: constants are on the device by then. A failure lists the places.
"""

from collections import Counter
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

from megdet_hvd.bn import CrossGPUBatchNorm2d, name_layers
from megdet_hvd.config.schema import ModelConfig
from megdet_hvd.memory.probe import made_up
from megdet_hvd.model.detector import Detector
from tests.pretend_cuda.device import CUDA, pretended_cuda
from tests.pretend_cuda.tally import Tally
from tests.pretend_cuda.training import (
    SameCarrier,
    cgbn_detector,
    plain_detector,
    steps_on,
    use_emulated,
)

PICTURES = 2
NMS, STATUS = "model/proposals.py", "engine/step/status.py"
WAITS = {NMS: PICTURES, STATUS: 1}
"""By file: how many proposals each picture has; and what a step found, read once. At 1137c55 there
were 45 in all."""


@cache
def counted(
    make: Callable[[ModelConfig, int], Detector], backbone: str, norm: str, fused: bool = False
) -> Tally:
    """The second step's; ``fused``: with CGBN's own kernels."""
    thin = {} if backbone == "resnet50" else {"fpn_channels": 32}
    config = ModelConfig(backbone=backbone, norm=norm, **thin)  # type: ignore[arg-type]
    with pretended_cuda() as tally:
        batch = made_up(PICTURES, (64, 96), 5, 80)
        detector = make(config, 80)
        if fused:
            use_emulated(detector, torch.float32, tally.note_launch)
        for step in steps_on(CUDA, detector, [batch], 2):
            if step.iteration == 1:
                tally.clear()
            else:
                assert step.status.images == PICTURES and step.status.loss > 0
    return tally


def by_file(tally: Tally) -> Counter[str]:
    found: Counter[str] = Counter()
    for (place, _), count in tally.syncs.items():
        found[place.own.partition(":")[0]] += count
    return found


def test_a_step_waits_for_the_device_at_these_places_only() -> None:
    tally = counted(cgbn_detector, "resnet18", "cgbn")
    found = by_file(tally)
    assert found[NMS] == WAITS[NMS] and found[STATUS] == WAITS[STATUS], tally.syncs_table()
    too_many = {file: n for file, n in found.items() if n > WAITS.get(file, 0)}
    assert not too_many, tally.syncs_table()


LAUNCHES = {False: 2_150, True: 1_440}
"""Of a step, R50, without kernels of our own and with them: 4,746 at 1137c55."""
A_LAYER = {False: (14, 5), True: (3, 3)}
"""Forward and backward, without its share of what is done for all layers together."""
SHARED = {False: 12, True: 0}
"""What is done for all layers together."""


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_with_cgbn_starts_few_kernels(fused: bool) -> None:
    tally = counted(cgbn_detector, "resnet50", "cgbn", fused)
    assert tally.launches.total() <= LAUNCHES[fused], tally.launches_table()
    plain = counted(plain_detector, "resnet18", "bn").launches.total()
    slim = counted(cgbn_detector, "resnet18", "cgbn", fused)
    layers, torchs = 20, 2  # torch's BN: one kernel each way
    most = plain + layers * (sum(A_LAYER[fused]) - torchs) + SHARED[fused]
    assert slim.launches.total() <= most, slim.launches_table()


@pytest.mark.parametrize("fused", [False, True])
def test_a_layer_alone(fused: bool) -> None:
    """Its kernels, and no wait; in a named model running statistics come at the end."""
    with pretended_cuda() as tally:
        layer = CrossGPUBatchNorm2d(8)
        model = nn.Sequential(layer).to(CUDA)
        name_layers(model)
        layer.carrier = SameCarrier()
        if fused:
            use_emulated(model, torch.float32, tally.note_launch)
        for _ in range(2):  # constants are there in the second
            x = torch.randn(2, 8, 6, 6).to(CUDA).requires_grad_()
            slope = torch.ones_like(x)
            layer.zero_grad(set_to_none=True)
            tally.clear()
            y = model(x)
            forward = Counter(tally.launches)
            tally.clear()
            y.backward(slope)
        own = sum(n for (place, _), n in forward.items() if "later_updates" not in place.own)
        assert own == A_LAYER[fused][0], forward
        assert not fused or own == forward.total(), forward
        assert tally.launches.total() == A_LAYER[fused][1], tally.launches_table()
        assert not tally.syncs, tally.syncs_table()
