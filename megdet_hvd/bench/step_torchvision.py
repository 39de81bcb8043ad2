"""The other side of ``bench step``: torchvision's detector in the loop that its users write.

``fasterrcnn_resnet50_fpn`` as it comes, pictures as lists of tensors, torch's SGD, autocast around
the forward pass, and the loop of torchvision's detection references: losses summed, looked at for
a value that is not finite, gradients cleared, backward, step.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn

from megdet_hvd.bench.step_counts import StepCounts
from megdet_hvd.data.batch import Batch
from megdet_hvd.errors import RunError
from megdet_hvd.model.norm import freeze_norms

Autocast = Callable[[], AbstractContextManager[Any]]
TRAINED_STAGES = ("layer2", "layer3", "layer4")
"""Of the backbone, where it has weights from elsewhere: three, torchvision's default."""


def build_peer(
    weights: Mapping[str, Tensor],
    classes: int,
    size: tuple[int, int],
    *,
    frozen: bool,
    device: torch.device,
) -> FasterRCNN:
    """Torchvision's model, in training mode.

    Args:
        weights: of a detector of ours that is built alike; the keys are torchvision's.
        classes: without background.
        size: height and width of the pictures, which its own resize is then to leave as they are.
        frozen: statistics fixed and the first two stages too, which is what torchvision makes of
            ``weights_backbone``; else plain BN and everything trained, as without any weights.
        device: where it is to be.
    """
    model = fasterrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=classes + 1,
        min_size=min(size),
        max_size=max(size),
    )
    if frozen:
        freeze_norms(model.backbone)
        for name, parameter in model.backbone.body.named_parameters():
            parameter.requires_grad_(name.startswith(TRAINED_STAGES))
    model.load_state_dict(weights)
    return model.to(device).train()


def peer_step(
    model: FasterRCNN,
    optimizer: torch.optim.Optimizer,
    autocast: Autocast,
    device: torch.device,
    pictures: list[Tensor],
    targets: list[dict[str, Tensor]],
) -> Callable[[], None]:
    """A call takes one step: from pictures on the CPU to the changed weights."""

    def step() -> None:
        images = [picture.to(device) for picture in pictures]
        truth = [{name: value.to(device) for name, value in one.items()} for one in targets]
        with autocast():
            losses = model(images, truth)
            loss = torch.stack(list(losses.values())).sum()
        if not math.isfinite(loss.item()):
            raise RunError(f"torchvision's loss is not finite: {losses}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def as_lists(batch: Batch) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """What torchvision's users have in a batch: floats in 0…1 of each picture, and its boxes."""
    pictures = [
        image[:, : info.size[0], : info.size[1]].contiguous().float() / 255
        for image, info in zip(batch.images, batch.infos, strict=True)
    ]
    return pictures, [{"boxes": t.boxes, "labels": t.labels} for t in batch.targets]


def peer_counts(
    model: FasterRCNN,
    autocast: Autocast,
    pictures: list[Tensor],
    targets: list[dict[str, Tensor]],
) -> StepCounts:
    """What a step works on, by a forward pass outside of the measurement."""
    seen: dict[str, Any] = {}

    def backbone(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen["canvas"] = tuple(inputs[0].shape[i] for i in (0, 2, 3))

    def rpn(_: nn.Module, inputs: Any, outputs: tuple[list[Tensor], Any]) -> None:
        seen["proposals"] = sum(map(len, outputs[0]))

    def head(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen["boxes"] = len(inputs[0])

    def sampled(labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        drawn: tuple[list[Tensor], list[Tensor]] = sampler(labels)
        seen["anchors"] = int(sum(mask.sum() for masks in drawn for mask in masks))
        return drawn

    sampler = model.rpn.fg_bg_sampler
    handles = [
        model.backbone.register_forward_pre_hook(backbone),
        model.rpn.register_forward_hook(rpn),
        model.roi_heads.box_head.register_forward_pre_hook(head),
    ]
    model.rpn.fg_bg_sampler = sampled
    try:
        with torch.no_grad(), autocast():
            model(pictures, targets)
    finally:
        model.rpn.fg_bg_sampler = sampler
        for handle in handles:
            handle.remove()
    return StepCounts(**seen)
