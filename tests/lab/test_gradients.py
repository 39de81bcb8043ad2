import math
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from megdet_hvd.lab.gradients import cut_twice, gradient_variance, log_slope
from megdet_hvd.model.balance import SampleBalance, drawn


class Linear(nn.Module):
    """A detector as far as the measurement goes: its loss of a picture is linear in its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
        self.sample_balance = SampleBalance()

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        counts = [int(row[0] > 0) for row in pictures]
        self.sample_balance = SampleBalance(
            rpn=drawn(counts, [2] * len(counts)), box=drawn(counts, [4] * len(counts))
        )
        return {"one": pictures @ self.weight, "other": 2 * (pictures @ self.weight)}


def test_the_total_variance_is_the_trace_of_the_covariance() -> None:
    torch.manual_seed(0)
    pictures = torch.randn(12, 5, 3)
    found = gradient_variance(cast(Any, Linear()), cast(Any, list(pictures)))
    gradients = 3 * pictures.numpy().astype(np.float64).mean(axis=1)  # of each batch
    assert (found.images, found.batches) == (5, 12)
    trace = np.trace(np.cov(gradients.T))
    assert math.isclose(found.variance, trace, rel_tol=1e-6)
    squared = (gradients.mean(axis=0) ** 2).sum() - trace / 12
    assert math.isclose(found.squared_mean, squared, rel_tol=1e-5, abs_tol=1e-7)
    shares = (pictures[..., 0] > 0).double().mean(dim=1).numpy() / 4
    mean, deviation = found.foreground["box"]
    assert math.isclose(mean, shares.mean())
    assert math.isclose(deviation, shares.std(ddof=1))


def test_a_variance_takes_two_batches() -> None:
    assert cut_twice([1, 2, 4, 8], 8) == [1, 2, 4] and cut_twice([1, 2], 1) == []


def test_the_slope_of_a_power_is_its_exponent() -> None:
    sizes = [1, 2, 4, 8]
    assert math.isclose(log_slope(sizes, [3 * size**-0.75 for size in sizes]), -0.75)
    assert math.isclose(log_slope([2, 8], [1.0, 4.0]), 1.0)
