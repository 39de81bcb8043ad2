"""CGBN's kernels on a GPU against float64, alone and over several GPUs."""

from pathlib import Path

import pytest
import torch
from torch import nn

from megdet_hvd.bn import CrossGPUBatchNorm2d
from megdet_hvd.bn.statistics import group_moments, local_moments
from tests.gpu.visit.bn_kernels import errors_beside_torch, no_worse
from tests.ranks import run_ranks


@pytest.mark.parametrize("offset", [0.0, 100.0, 1e4])
@pytest.mark.parametrize("last", [False, True])
def test_statistics_are_exact_before_they_are_stored(offset: float, last: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(4, 16, 96, 80, generator=generator, dtype=torch.float64) + offset).float()
    wide = x.double()
    x = x.cuda()
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    n, mean, variance = group_moments(local_moments(x))
    spread = wide.std((0, 2, 3), correction=0)
    assert int(n) == 4 * 96 * 80
    assert ((mean.cpu() - wide.mean((0, 2, 3))).abs() / spread).max() < 1e-6
    assert (variance.cpu() / spread.square() - 1).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 100.0, 1e4])
@pytest.mark.parametrize("last", [False, True])
def test_no_worse_than_torchs_own(dtype: torch.dtype, offset: float, last: bool) -> None:
    if dtype == torch.bfloat16 and offset == 1e4:
        pytest.skip("bfloat16 has one value there, 9984: nothing is left to compare")
    for what, errors in errors_beside_torch(torch.device("cuda"), dtype, offset, last).items():
        assert no_worse(*errors, dtype, offset), (what, *errors)


def test_an_empty_input_and_one_value() -> None:
    layer = CrossGPUBatchNorm2d(3).cuda()
    x = torch.zeros(0, 3, 4, 4, device="cuda", requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        layer(torch.ones(1, 3, 1, 1, device="cuda"))


def test_it_keeps_no_more_memory_than_plain_bn() -> None:
    x = torch.randn(8, 64, 200, 200, device="cuda", requires_grad=True)
    peaks = []
    for layer in (nn.BatchNorm2d(64).cuda(), CrossGPUBatchNorm2d(64).cuda()):
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        y = layer(x)
        peaks.append(torch.cuda.memory_allocated() - before)
        del y
    assert peaks[1] <= peaks[0] + 64 * 8 * 16, peaks


def test_several_gpus_equal_plain_bn_on_the_concatenated_batch() -> None:
    gpus = torch.cuda.device_count()
    if gpus < 2:
        pytest.skip("1 GPU: BN sums and gradients over several GPUs were not checked")
    done = run_ranks(Path(__file__).with_name("check_ranks_cuda.py"), min(gpus, 4))
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("all equal") == min(gpus, 4), done.stdout
