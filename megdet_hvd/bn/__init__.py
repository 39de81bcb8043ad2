"""Cross-GPU Batch Normalisation (§3.3)."""

from megdet_hvd.bn.convert import convert_cross_gpu_bn, name_layers
from megdet_hvd.bn.layer import CrossGPUBatchNorm2d

__all__ = ["CrossGPUBatchNorm2d", "convert_cross_gpu_bn", "name_layers"]
