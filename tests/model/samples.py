"""Small detectors and batches for the tests of the model."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from megdet_hvd.config.schema import ModelConfig, RoiConfig, RpnConfig
from megdet_hvd.data.batch import Batch, ImageInfo, Target
from megdet_hvd.model.build import build_detector, local_norm
from megdet_hvd.model.detector import Detector

CANVAS = 128
SIZES = ((128, 96), (96, 128), (70, 90), (64, 64), (100, 80), (128, 128), (88, 66), (96, 96))
"""Height and width. Some are so small on the canvas that a scale inferred from them is wrong."""
CLASSES = 3


def slim(**changes: Any) -> ModelConfig:
    """A ResNet-18 detector narrow enough for a CPU. ``rpn`` and ``roi`` are dicts of changes."""
    rpn = RpnConfig(**{"anchors_per_image": 64, **changes.pop("rpn", {})})
    roi = RoiConfig(**{"width": 64, "boxes_per_image": 32, **changes.pop("roi", {})})
    settings: dict[str, Any] = {"backbone": "resnet18", "norm": "bn", "fpn_channels": 32} | changes
    return ModelConfig(anchor_sizes=(16, 32, 48, 64, 96), rpn=rpn, roi=roi, **settings)


def as_torchvision(config: ModelConfig) -> ModelConfig:
    """The order of torchvision's sums, for equality with it beyond rounding."""
    roi = config.roi.model_copy(update={"align": "torchvision", "linear": "torch"})
    return config.model_copy(update={"memory_format": "contiguous", "roi": roi})


def build(config: ModelConfig, seed: int = 0, classes: int = CLASSES) -> Detector:
    return build_detector(config, classes, local_norm(config), seed=seed)


def random_batch(
    sizes: Sequence[tuple[int, int]] = SIZES, boxes: Sequence[int] | int = 4, epoch: int = 0
) -> Batch:
    """Noise with random boxes; picture i is the same whatever else is in the batch."""
    counts = [boxes] * len(sizes) if isinstance(boxes, int) else boxes
    images, infos, targets = [], [], []
    for i, ((height, width), count) in enumerate(zip(sizes, counts, strict=True)):
        generator = torch.Generator().manual_seed(100 + i)
        coarse = torch.randint(0, 256, (3, 16, 16), generator=generator, dtype=torch.uint8)
        images.append(coarse.repeat_interleave(8, 1).repeat_interleave(8, 2))
        corner = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) * 0.6
        sides = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) * 0.3 + 6
        labels = torch.randint(1, CLASSES + 1, (count,), generator=generator)
        targets.append(Target(torch.cat((corner, corner + sides), 1), labels))
        infos.append(ImageInfo(i, 0, 1000 + i, epoch, (height, width), (height, width)))
    return Batch(torch.stack(images), tuple(infos), tuple(targets))


def part(batch: Batch, positions: Sequence[int]) -> Batch:
    """Those pictures of ``batch``, on the same canvas."""
    return Batch(
        batch.images[list(positions)],
        tuple(batch.infos[i] for i in positions),
        tuple(batch.targets[i] for i in positions),
    )


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.cat(list(losses.values())).sum()


def backward(losses: dict[str, Tensor]) -> None:
    torch.autograd.backward([total(losses)])


def real_pictures(sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Photographs of the test data, (3, H, W) uint8 of the ``sizes`` asked for."""
    root = Path(__file__).parents[2]
    data = Path(os.environ.get("MEGDET_TEST_DATA", root.parent / "shared" / "data"))
    files = sorted((data / "coco_tiny").rglob("*.jpg")) + sorted((data / "bccd").rglob("*.jpg"))
    if len(files) < len(sizes):
        pytest.skip(
            f"no real pictures under {data} (set MEGDET_TEST_DATA): equality with torchvision "
            "on photographs was not checked"
        )
    step = len(files) // len(sizes)
    pictures = []
    for file, (height, width) in zip(files[::step], sizes, strict=False):
        picture = Image.open(file).convert("RGB").resize((width, height))
        values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        pictures.append(values.view(height, width, 3).permute(2, 0, 1).contiguous())
    return pictures


def on_canvas(pictures: Sequence[Tensor], side: int = CANVAS) -> Batch:
    """An evaluation batch. The canvas outside the pictures holds rubbish."""
    images = torch.full((len(pictures), 3, side, side), 77, dtype=torch.uint8)
    infos = []
    for i, picture in enumerate(pictures):
        height, width = picture.shape[-2:]
        images[i, :, :height, :width] = picture
        infos.append(ImageInfo(i, 0, i, 0, (height, width), (height, width)))
    return Batch(images, tuple(infos), ())


OPINIONS = {
    "rpn.head.cls_logits": 2.0,
    "rpn.head.bbox_pred": 0.3,
    "roi_heads.box_predictor.cls_score": 3.0,
    "roi_heads.box_predictor.bbox_pred": 1.0,
}
"""Spread of each output layer's values in a lively model."""


def make_lively(model: nn.Module, run: Callable[[], Any]) -> None:
    """Give a random model the BN statistics of its data, and outputs that vary with the data.

    Args:
        model: with torchvision's names.
        run: runs the model once, on its data.
    """
    with torch.no_grad():
        # A quarter of the first layer's channels get a variance near 1e-6, where epsilon matters.
        model.get_parameter("backbone.body.conv1.weight")[::4] *= 1e-3
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
                module.reset_running_stats()
        model.train()
        run()
        for name, spread in OPINIONS.items():
            _centre(model.get_submodule(name), spread, run)
        model.eval()


def _centre(layer: nn.Module, spread: float, run: Callable[[], Any]) -> None:
    """Scale and shift ``layer`` so that each channel has mean 0 and this deviation on the data."""
    seen: list[Tensor] = []

    def look(module: nn.Module, inputs: Any, output: Tensor) -> None:
        seen.append(output.transpose(0, 1).flatten(1))

    handle = layer.register_forward_hook(look)
    run()
    handle.remove()
    values = torch.cat(seen, dim=1)
    gain = spread / values.std(dim=1).clamp(min=1e-6)
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    bias.sub_(values.mean(dim=1)).mul_(gain)
    weight.mul_(gain.view(-1, *[1] * (weight.dim() - 1)))
