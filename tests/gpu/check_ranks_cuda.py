"""Run by one rank a GPU: CGBN over all of them against plain BN in float64."""

import traceback

import torch
from torch import nn

from megdet_hvd.bn import CrossGPUBatchNorm2d
from megdet_hvd.job.abort import end_job
from megdet_hvd.job.exchange import gather_objects
from megdet_hvd.job.session import start, stop
from tests.bn.sent import watched_messages


def main() -> None:
    world = start()
    torch.cuda.set_device(world.local_rank)
    for counts in ([2] * world.size, list(range(world.size))):
        generator = torch.Generator().manual_seed(4)
        whole = torch.randn(sum(counts), 8, 33, 21, generator=generator) * 3 + 7
        g = torch.randn(whole.shape, generator=generator)
        wide = whole.double().requires_grad_()
        exact = nn.BatchNorm2d(8).double()
        right = exact(wide)
        right.backward(g.double())
        first = sum(counts[: world.rank])
        own = slice(first, first + counts[world.rank])
        x = whole[own].cuda().requires_grad_()
        layer = CrossGPUBatchNorm2d(8).cuda()
        with watched_messages() as sent:
            y = layer(x)
            y.backward(g[own].cuda())
        assert len(sent.names) == 2, sent.names
        assert x.grad is not None and wide.grad is not None and layer.running_var is not None
        if counts[world.rank]:
            assert (y.cpu() - right[own]).abs().max() < 1e-5 * right.abs().max()
            assert (x.grad.cpu() - wide.grad[own]).abs().max() < 1e-5 * wide.grad.abs().max()
        assert exact.running_var is not None
        assert torch.allclose(layer.running_var.cpu().double(), exact.running_var, rtol=1e-5)
        shares = gather_objects(layer.weight.grad.cpu(), world, "shares")  # type: ignore[union-attr]
        assert exact.weight.grad is not None
        assert torch.allclose(sum(shares).double(), exact.weight.grad, rtol=1e-4, atol=1e-4)
    print(f"rank {world.rank} of {world.size}: all equal", flush=True)
    stop()


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        print(traceback.format_exc(), flush=True)
        end_job(1)
