from typing import Any, cast

import torch
from torch import nn

from megdet_hvd.lab.precise_bn import recalibrate


def test_statistics_are_those_of_all_pictures_at_the_final_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    first, second = model[1], model[3]
    assert isinstance(first, nn.BatchNorm2d) and isinstance(second, nn.BatchNorm2d)
    batches = [torch.randn(16, 3, 8, 8) * (i + 1) + i for i in range(6)]
    weights = {name: p.clone() for name, p in model.named_parameters()}
    recalibrate(model.eval(), cast(Any, batches))
    assert not model.training and first.momentum == second.momentum == 0.1
    assert all(torch.equal(weights[name], p) for name, p in model.named_parameters())
    values = torch.cat([model[0](batch) for batch in batches]).double()
    assert first.running_mean is not None and first.running_var is not None
    assert torch.allclose(first.running_mean.double(), values.mean((0, 2, 3)), atol=1e-5)
    # Each batch's variance is the unbiased one of 1024 values: 1e-3 more than the biased.
    variance = values.var((0, 2, 3), correction=0)
    assert torch.allclose(first.running_var.double(), variance, rtol=2e-3)
    assert second.running_mean is not None
    inner = torch.cat([torch.relu(_own_norm(model[0](batch))) for batch in batches])
    assert torch.allclose(second.running_mean, inner.mean((0, 2, 3)), atol=1e-4)


def _own_norm(values: torch.Tensor) -> torch.Tensor:
    """By the batch's statistics, as in training."""
    mean = values.mean((0, 2, 3), keepdim=True)
    variance = values.var((0, 2, 3), correction=0, keepdim=True)
    return (values - mean) / (variance + 1e-5).sqrt()
