"""How much memory a step will need, from steps on small pictures.

A probe is the same problem made smaller: a detector of the same layers, a canvas of fewer pixels,
and as many times fewer proposals and sampled boxes. Its peak is then

    c + a·(n·u + v)      (n pictures of a pixels)

with u what a picture's pixel holds, v what a pixel of only one picture at a time does (losses go
picture by picture), and c what depends on neither (weights cast to bfloat16). Three probes, at
(a, 1), (a, 2) and (2a, 1), with twice the boxes where there are twice the pixels, give the three.
The model itself is not touched, nothing is sent.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from megdet_hvd.config.schema import ModelConfig
from megdet_hvd.data.batch import Batch, ImageInfo, Target
from megdet_hvd.data.canvas import STRIDE
from megdet_hvd.memory.measure import peak_bytes
from megdet_hvd.memory.recompute import recompute_segments
from megdet_hvd.memory.segments import MODES, Mode
from megdet_hvd.model.build import build_detector, local_norm

PROBE_PIXELS = 2**16
"""Pixels of a probe's canvas, about."""


@dataclass(frozen=True)
class Workload:
    """What one process holds in one pass."""

    images: int
    """Pictures."""
    canvas: tuple[int, int]
    """Height and width, pixels."""
    boxes: int
    """Most ground-truth boxes in a picture."""


def estimate_peaks(
    config: ModelConfig,
    num_classes: int,
    work: Workload,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
) -> dict[Mode, int]:
    """Peak bytes of each mode above weights, gradients and momentum."""
    height, width = probe_canvas(work.canvas)
    probed, wanted = height * width, work.canvas[0] * work.canvas[1]
    small, doubled = (shrink(config, pixels / wanted) for pixels in (probed, 2 * probed))
    detector = build_detector(small, num_classes, local_norm(config), seed=0, pretrained=False)
    detector.to(device).train()

    def peak(images: int, canvas: tuple[int, int], boxes: ModelConfig = small) -> int:
        detector.rpn.config, detector.roi_heads.config = boxes.rpn, boxes.roi
        batch = made_up(images, canvas, work.boxes, num_classes).to(device)

        def step() -> None:
            with autocast():
                losses = detector(batch)
            torch.stack([part.sum() for part in losses.values()]).sum().backward()

        return peak_bytes(step, detector, device)

    peaks: dict[Mode, int] = {}
    for mode in MODES:
        recompute_segments(detector, mode)
        one, two = peak(1, (height, width)), peak(2, (height, width))
        larger = peak(1, (height, 2 * width), doubled)
        per_image = max(two - one, 0)
        alone = max(larger - one - per_image, 0)
        constant = max(2 * one - larger, 0)
        scale = wanted / probed
        peaks[mode] = int(constant + scale * (work.images * per_image + alone))
    recompute_segments(detector, "none")  # no cycle of references keeps the probe alive
    return peaks


def probe_canvas(canvas: tuple[int, int]) -> tuple[int, int]:
    """A canvas of the same shape, of about PROBE_PIXELS or less."""
    shrunk = min(1.0, (PROBE_PIXELS / (canvas[0] * canvas[1])) ** 0.5)
    height, width = (max(round(side * shrunk / STRIDE), 1) * STRIDE for side in canvas)
    return height, width


def shrink(config: ModelConfig, factor: float) -> ModelConfig:
    """``config`` with that many times fewer proposals and sampled boxes."""

    def less(number: int) -> int:
        return max(round(number * factor), 1)

    rpn, roi = config.rpn, config.roi
    return config.model_copy(
        update={
            "rpn": rpn.model_copy(
                update={
                    "anchors_per_image": less(rpn.anchors_per_image),
                    "pre_nms_train": less(rpn.pre_nms_train),
                    "post_nms_train": less(rpn.post_nms_train),
                }
            ),
            "roi": roi.model_copy(update={"boxes_per_image": less(roi.boxes_per_image)}),
        }
    )


def made_up(images: int, canvas: tuple[int, int], boxes: int, num_classes: int) -> Batch:
    """Noise with boxes anywhere, in the order in which the loader's pictures lie."""
    generator = torch.Generator().manual_seed(0)
    height, width = canvas
    pixels = torch.randint(0, 256, (images, 3, height, width), generator=generator)
    infos, targets = [], []
    for i in range(images):
        sides = torch.tensor([width, height])
        corner = torch.rand(boxes, 2, generator=generator) * sides * 0.6
        size = sides * (0.05 + 0.3 * torch.rand(boxes, 2, generator=generator))
        labels = torch.randint(1, num_classes + 1, (boxes,), generator=generator)
        targets.append(Target(torch.cat([corner, corner + size], 1), labels))
        infos.append(ImageInfo(i, 0, i, 0, canvas, canvas))
    pictures = pixels.to(torch.uint8).contiguous(memory_format=torch.channels_last)
    return Batch(pictures, tuple(infos), tuple(targets))
