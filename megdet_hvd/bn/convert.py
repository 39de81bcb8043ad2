"""Put CGBN into a model: every BN layer shares its statistics over the group."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from megdet_hvd.bn.fused_kernels import FusedKernels
from megdet_hvd.bn.later_updates import LaterUpdates
from megdet_hvd.bn.layer import CrossGPUBatchNorm2d


def convert_cross_gpu_bn(
    module: nn.Module,
    process_set: Any | None = None,
    *,
    carrier: str = "horovod",
    images_per_statistic: int | None = None,
) -> nn.Module:
    """Replace every nn.BatchNorm2d in ``module`` by a CrossGPUBatchNorm2d over ``process_set``.

    Parameters and buffers are kept (the same tensors), and with them state-dict keys. Frozen
    layers (torchvision's FrozenBatchNorm2d) stay. Returns the module, or its replacement where
    it is a BN layer itself. Every layer is named after its path, the same on all processes.
    ``carrier`` and ``images_per_statistic`` as in :class:`CrossGPUBatchNorm2d`.
    """
    settings = {
        "process_set": process_set,
        "carrier": carrier,
        "images_per_statistic": images_per_statistic,
    }
    converted = _converted(module, settings, {})
    name_layers(converted)
    return converted


def _converted(
    module: nn.Module, settings: dict[str, Any], done: dict[nn.Module, nn.Module]
) -> nn.Module:
    """``done`` holds the layers replaced so far: one that stands in two places stays one."""
    if module in done:
        return done[module]
    if isinstance(module, nn.BatchNorm2d):
        layer = CrossGPUBatchNorm2d(
            module.num_features,
            module.eps,
            module.momentum,
            module.affine,
            module.track_running_stats,
            **settings,
        )
        layer.weight, layer.bias = module.weight, module.bias
        layer.running_mean, layer.running_var = module.running_mean, module.running_var
        layer.num_batches_tracked = module.num_batches_tracked
        done[module] = layer.train(module.training)
        return layer
    for name, child in list(module._modules.items()):
        if child is not None:
            module._modules[name] = _converted(child, settings, done)
    return module


def name_layers(module: nn.Module) -> list[str]:
    """Name each CGBN layer's messages after its path in ``module``; returns the paths.

    From then on a layer numbers its calls within one forward of ``module``, so that the levels
    of a pyramid differ while the same call has the same name in every step, as Horovod's
    response cache wants it.
    """
    paths = []
    for path, layer in module.named_modules():
        if isinstance(layer, CrossGPUBatchNorm2d):
            layer.message_name = f"cgbn.{path or 'layer'}"
            layer.counts_calls = True
            paths.append(path)
    if paths and _begin not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(_begin)
        module.register_forward_hook(_end, always_call=True)
    return paths


def use_fused_kernels(module: nn.Module, kernels: FusedKernels | None) -> None:
    """Let every CGBN layer of ``module`` add up on ``kernels``; None: on torch's.

    ``kernels`` are those of :func:`megdet_hvd.bn.fused_kernels.load`, for the GPU that ``module``
    is on: 6 launches a layer in place of 19. Inputs of other types, or elsewhere, take torch's.
    All processes of a group should do alike: last bits of running statistics differ otherwise.
    :func:`megdet_hvd.bn.fused_check.difference` tells whether they are right on a GPU. Copies of a
    layer begin without.
    """
    for layer in _layers(module):
        layer.fused = kernels


def _layers(module: nn.Module) -> Iterator[CrossGPUBatchNorm2d]:
    return (layer for layer in module.modules() if isinstance(layer, CrossGPUBatchNorm2d))


def _begin(module: nn.Module, _: Any) -> None:
    """Calls are numbered from nought; on a GPU, running statistics move together at the end."""
    later: LaterUpdates | None = None
    for layer in _layers(module):
        layer.next_call = 0
        if later is None and layer.training and _on_gpu(layer):
            later = LaterUpdates()
        layer.later = later


def _on_gpu(layer: CrossGPUBatchNorm2d) -> bool:
    return layer.running_mean is not None and layer.running_mean.is_cuda


def _end(module: nn.Module, *_: Any) -> None:
    for layer in _layers(module):
        if layer.later is not None:
            layer.later.make()
            layer.later = None
