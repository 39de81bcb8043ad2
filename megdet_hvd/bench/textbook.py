"""BN over several processes as a textbook writes it: for comparison in the bench, for nothing else.

Algorithm 1 of the paper line by line: sum, all-reduce, mean; squared deviations, all-reduce,
variance; and autograd does the rest. Two collectives forward, two backward, and every
intermediate tensor kept.
"""

from typing import Any

import torch
from torch import Tensor, nn


class _GroupSum(torch.autograd.Function):
    """Σ over the processes of a set; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, process_set: Any, name: str) -> Tensor:
        import horovod.torch as hvd

        ctx.process_set, ctx.name = process_set, name
        total: Tensor = hvd.allreduce(x, name=name, op=hvd.Sum, process_set=process_set)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        import horovod.torch as hvd

        name = f"{ctx.name}.backward"
        return (
            hvd.allreduce(grads[0], name=name, op=hvd.Sum, process_set=ctx.process_set),
            None,
            None,
        )


class TextbookBatchNorm2d(nn.BatchNorm2d):
    """Equal image counts on all processes of the set; no running statistics in training."""

    process_set: Any = None
    message_name = "textbook"
    size = 1

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        if not self.training:
            return super().forward(input)
        dims, count = (0, 2, 3), self.size * input.numel() // input.shape[1]

        def summed(x: Tensor, name: str) -> Tensor:
            if self.size == 1:
                return x
            total: Tensor = _GroupSum.apply(x, self.process_set, f"{self.message_name}.{name}")
            return total

        mean = summed(input.sum(dims), "mean") / count
        centred = input - mean.view(1, -1, 1, 1)
        variance = summed(centred.square().sum(dims), "variance") / count
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


def name_textbook_layers(module: nn.Module, process_set: Any, size: int) -> None:
    """Give every textbook layer its set, and a name equal on all processes."""
    for path, layer in module.named_modules():
        if isinstance(layer, TextbookBatchNorm2d):
            layer.process_set, layer.size = process_set, size
            layer.message_name = f"textbook.{path or 'layer'}"
