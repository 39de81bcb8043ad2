"""Running statistics left alone while a batch that they have counted is computed again."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.module import register_module_forward_pre_hook

from megdet_hvd.bn import CrossGPUBatchNorm2d
from megdet_hvd.bn.eager import unobserved

_NAMES = ("running_mean", "running_var", "num_batches_tracked")

_lent: ContextVar[dict[nn.Module, dict[str, Tensor | None]] | None] = ContextVar(
    "running_statistics_lent", default=None
)
"""Layers that compute on copies in this thread now, with their own buffers."""


@contextmanager
def running_statistics_held() -> Iterator[None]:
    """Within it, layers of this thread in training mode leave their running statistics alone.

    Each normalisation layer of torch's kinds (BatchNorm, SyncBatchNorm, InstanceNorm, and what is
    derived from them) computes on copies of its buffers, from its first call to the end of the
    block. Copies, not None: torch then saves as many tensors for the backward pass. CGBN needs
    none: where it takes its statistics from a tape, it moves nothing (:mod:`megdet_hvd.bn.tape`).
    """
    own: dict[nn.Module, dict[str, Tensor | None]] = {}
    token = _lent.set(own)
    hook = register_module_forward_pre_hook(_lend)
    try:
        yield
    finally:
        hook.remove()
        _lent.reset(token)
        for layer, buffers in own.items():
            layer._buffers.update(buffers)


def _lend(layer: nn.Module, _: Any) -> None:
    own = _lent.get()
    if own is None or not isinstance(layer, _NormBase) or not layer.training or layer in own:
        return
    if isinstance(layer, CrossGPUBatchNorm2d):
        return
    own[layer] = {name: layer._buffers[name] for name in _NAMES if name in layer._buffers}
    with unobserved():
        for name, buffer in own[layer].items():
            layer._buffers[name] = None if buffer is None else buffer.clone()
