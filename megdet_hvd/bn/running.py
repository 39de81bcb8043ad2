"""Running statistics of several machines, averaged for evaluation and for the saved model.

Machines see different pictures, so their running statistics differ. Every process evaluates
and saves the same model with the average of all; training goes on from each one's own.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from megdet_hvd.comm.position import waiting


def running_buffers(model: nn.Module) -> list[Tensor]:
    """The running mean and variance of every layer that tracks them, in module order."""
    return [
        buffer
        for layer in model.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None
        for buffer in (layer.running_mean, layer.running_var)
        if buffer is not None
    ]


@contextmanager
def averaged_running_statistics(model: nn.Module, processes: int, shared: bool) -> Iterator[None]:
    """Inside, ``model`` holds the average over all ``processes``; afterwards, its own again.

    ``shared`` says that all processes hold the same statistics already (one group), so that
    nothing need be sent. All processes call it together otherwise.
    """
    buffers = running_buffers(model)
    if shared or processes == 1 or not buffers:
        yield
        return
    import horovod.torch as hvd

    own = [buffer.clone() for buffer in buffers]
    flat = torch.cat([buffer.double().flatten() for buffer in buffers])
    with waiting("megdet.running_statistics", range(processes), flat.numel()):
        mean = hvd.allreduce(flat, name="megdet.running_statistics", op=hvd.Average)
    for buffer, part in zip(buffers, mean.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(part.view_as(buffer))
    try:
        yield
    finally:
        for buffer, kept in zip(buffers, own, strict=True):
            buffer.copy_(kept)
