"""Cross-GPU Batch Normalisation (§3.3)."""

from megdet_hvd.bn.carriers import carrier_of
from megdet_hvd.bn.convert import convert_cross_gpu_bn, name_layers, use_fused_kernels
from megdet_hvd.bn.layer import CrossGPUBatchNorm2d
from megdet_hvd.bn.tape import separate_forward

__all__ = [
    "CrossGPUBatchNorm2d",
    "carrier_of",
    "convert_cross_gpu_bn",
    "name_layers",
    "separate_forward",
    "use_fused_kernels",
]
