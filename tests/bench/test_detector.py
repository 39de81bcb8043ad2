"""Measurements take the kernels for CGBN that a run takes."""

from functools import partial

import pytest
import torch
from torch import nn

from megdet_hvd.bench.detector import made_detector, put_run_kernels_to_use
from megdet_hvd.bn import CrossGPUBatchNorm2d
from megdet_hvd.engine import bn_kernels
from tests.engine.small import thin_backbones
from tests.engine.tale import ALONE
from tests.engine.test_bn_kernels import OURS, right
from tests.pretend_cuda.device import CUDA, pretended_cuda


def layers_of(model: nn.Module) -> list[CrossGPUBatchNorm2d]:
    return [one for one in model.modules() if isinstance(one, CrossGPUBatchNorm2d)]


def test_on_a_gpu_they_are_our_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = partial(bn_kernels.find_bn_kernels, loader=right)
    monkeypatch.setattr(bn_kernels, "find_bn_kernels", known)
    with pretended_cuda(), thin_backbones():
        detector = made_detector("resnet18", "cgbn", "float32", CUDA)
    layers = layers_of(detector)
    assert len(layers) > 20 and all(layer.fused is not None for layer in layers)
    assert capsys.readouterr().out == f"{OURS}\n"


def test_elsewhere_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    put_run_kernels_to_use(CrossGPUBatchNorm2d(3), "bfloat16", torch.device("cpu"), ALONE)
    put_run_kernels_to_use(nn.BatchNorm2d(3), "float32", CUDA, ALONE)
    assert capsys.readouterr().out == ""
