"""The box head's fully connected layers, on a CPU by oneDNN.

torch hands convolutions to oneDNN and float32 matrix products to MKL, which uses half the width of
an AMD processor's registers. These layers multiply as much as a third of all convolutions do.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from megdet_hvd.model.kernels import KernelChoice


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x.to_mkldnn(), weight, bias).to_dense()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        upper, aten = grads[0].contiguous().to_mkldnn(), torch.ops.aten
        below = None
        if ctx.needs_input_grad[0]:
            below = aten.mkldnn_linear_backward_input(x.shape, upper, weight).to_dense()
        own = aten.mkldnn_linear_backward_weights(upper, x.to_mkldnn(), weight, True)
        return below, *(one.to_dense() for one in own)


class BoxLinear(nn.Linear):
    """``nn.Linear``, equal up to rounding.

    oneDNN computes float32 on a CPU, without autocast; everything else goes torch's own way.
    """

    def __init__(self, layer: nn.Linear, kernel: Literal["auto", "torch", "onednn"]) -> None:
        """Takes over the weights of ``layer``; no random number is drawn."""
        nn.Module.__init__(self)  # nn.Linear's would draw weights
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.choice = KernelChoice("linear", setting=kernel, new="onednn")

    def forward(self, input: Tensor) -> Tensor:
        """(n, in) to (n, out)."""
        if self._by_onednn(input):
            found: Tensor = _OneDnnLinear.apply(input.contiguous(), self.weight, self.bias)
            return found
        return super().forward(input)

    def _by_onednn(self, input: Tensor) -> bool:
        return (
            self.choice.kernel == "onednn"
            and input.device.type == "cpu"
            and input.dtype == self.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and len(input) > 0
            and torch.backends.mkldnn.is_available()
        )


def replace_linears(head: nn.Module, kernel: Literal["auto", "torch", "onednn"]) -> None:
    """Every ``nn.Linear`` below ``head`` becomes a :class:`BoxLinear`, in place; keys stay."""
    for name, child in head.named_children():
        if type(child) is nn.Linear:
            setattr(head, name, BoxLinear(child, kernel))
        else:
            replace_linears(child, kernel)
