"""The detector that a measurement takes, its CGBN on the kernels that a run's would have."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

    from megdet_hvd.job.world import World
    from megdet_hvd.model.detector import Detector

CLASSES = 80
"""COCO's."""


def made_detector(backbone: str, norm: str, precision: str, device: "torch.device") -> "Detector":
    """With weights of seed 0, in training mode on ``device``, in a process by itself.

    On a GPU a line says which kernels CGBN has.
    """
    from megdet_hvd.bn import convert_cross_gpu_bn
    from megdet_hvd.config.schema import ModelConfig
    from megdet_hvd.job.world import World
    from megdet_hvd.model.build import build_detector, local_norm

    config = ModelConfig.model_validate({"backbone": backbone, "norm": norm})
    detector = build_detector(config, CLASSES, local_norm(config), seed=0)
    if norm == "cgbn":
        convert_cross_gpu_bn(detector)
    detector.to(device).train()
    put_run_kernels_to_use(detector, precision, device, World(0, 1, ((0,),)))
    return detector


def put_run_kernels_to_use(
    model: "nn.Module", precision: str, device: "torch.device", world: "World"
) -> None:
    """Let CGBN layers in ``model``, which is on ``device``, sum as those of a run do by default.

    All ranks call it together; rank 0 prints a line on a GPU.
    """
    from megdet_hvd.config.schema import Config
    from megdet_hvd.engine.bn_kernels import find_bn_kernels

    kernels = find_bn_kernels(model, Config.model_validate({"precision": precision}), world, device)
    line = kernels.put_to_use(model) if kernels else None
    if line and world.is_main:
        print(line, flush=True)
