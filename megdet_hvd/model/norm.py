"""Normalisation layers that need no other process: frozen statistics, plain BN, none.

The detector takes a factory ``channels -> layer``. Cross-GPU BN (§3.3, Algorithm 1) comes from
the caller as one more such factory, so that nothing here knows of processes.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

NormFactory = Callable[[int], nn.Module]


class BatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` that lets an empty input (0, C, H, W) through in training.

    A process without pictures must still run every layer. Statistics of nothing do not exist:
    the running ones stay as they are, and weight and bias get zero gradients.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        if input.numel() == 0 and self.training and self.affine:
            return input * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return super().forward(input)


def frozen_norm(eps: float) -> NormFactory:
    """Fixed statistics, weight and bias, as torchvision's detectors have them by default."""
    return lambda channels: FrozenBatchNorm2d(channels, eps=eps)


def batch_norm(eps: float, momentum: float | None) -> NormFactory:
    """Plain BN: the statistics of this process's pictures."""
    return lambda channels: BatchNorm2d(channels, eps=eps, momentum=momentum)


def no_norm() -> NormFactory:
    """No normalisation. The residual sums then grow with depth: for shallow networks only."""
    return lambda channels: nn.Identity()


def freeze_norms(module: nn.Module) -> None:
    """Replace, in place, every BN layer below ``module`` by one with its statistics frozen.

    The frozen layer computes what the BN layer computes in evaluation. State-dict keys stay,
    except ``num_batches_tracked``, which a frozen layer has no use for.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, name, frozen_copy(child))
        else:
            freeze_norms(child)


def frozen_copy(layer: nn.modules.batchnorm._BatchNorm) -> FrozenBatchNorm2d:
    """A layer of fixed statistics with the tensors of ``layer``."""
    frozen = FrozenBatchNorm2d(layer.num_features, eps=layer.eps)
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = getattr(layer, name)
        if value is not None:
            setattr(frozen, name, value.detach().clone())
    return frozen
