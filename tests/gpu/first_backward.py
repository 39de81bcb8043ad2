"""Run by a process on a GPU: autograd's thread there begins with a kernel of CGBN's own."""

import torch

from megdet_hvd.bn import CrossGPUBatchNorm2d
from megdet_hvd.bn.carriers import SingleProcessCarrier
from megdet_hvd.bn.fused_kernels import load


def main() -> None:
    """One layer, forward and backward."""
    device = torch.device("cuda")
    layer = CrossGPUBatchNorm2d(8).to(device)
    layer.carrier, layer.fused = SingleProcessCarrier(), load(device, [torch.float32])
    x = torch.randn(2, 8, 16, 16, device=device, requires_grad=True)
    slopes = torch.randn_like(x)
    layer(x).backward(slopes)
    assert x.grad is not None and bool(x.grad.isfinite().all()) and bool(x.grad.any())
    print("gradients are there")


if __name__ == "__main__":
    main()
