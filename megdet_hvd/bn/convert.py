"""Put CGBN into a model: every BN layer shares its statistics over the group."""

from typing import Any

from torch import nn

from megdet_hvd.bn.layer import CrossGPUBatchNorm2d


def convert_cross_gpu_bn(module: nn.Module, process_set: Any | None = None) -> nn.Module:
    """Replace every nn.BatchNorm2d in ``module`` by a CrossGPUBatchNorm2d over ``process_set``.

    Parameters and buffers are kept (the same tensors), and with them state-dict keys. Frozen
    layers (torchvision's FrozenBatchNorm2d) stay. Returns the module, or its replacement where
    it is a BN layer itself. Every layer is named after its path, the same on all processes.
    """
    converted = _converted(module, process_set)
    name_layers(converted)
    return converted


def _converted(module: nn.Module, process_set: Any | None) -> nn.Module:
    if isinstance(module, CrossGPUBatchNorm2d):
        module.process_set, module._carrier = process_set, None
        return module
    if isinstance(module, nn.BatchNorm2d):
        layer = CrossGPUBatchNorm2d(
            module.num_features,
            module.eps,
            module.momentum,
            module.affine,
            module.track_running_stats,
            process_set=process_set,
        )
        layer.weight, layer.bias = module.weight, module.bias
        layer.running_mean, layer.running_var = module.running_mean, module.running_var
        layer.num_batches_tracked = module.num_batches_tracked
        return layer.train(module.training)
    for name, child in list(module.named_children()):
        replacement = _converted(child, process_set)
        if replacement is not child:
            setattr(module, name, replacement)
    return module


def name_layers(module: nn.Module) -> list[str]:
    """Name each CGBN layer's messages after its path in ``module``; returns the paths."""
    paths = []
    for path, layer in module.named_modules():
        if isinstance(layer, CrossGPUBatchNorm2d):
            layer.message_name = f"cgbn.{path or 'layer'}"
            paths.append(path)
    return paths
