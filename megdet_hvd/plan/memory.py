"""Memory of a GPU in training: weights and what goes with them, and live tensors by pixels.

Live tensors are *measured here* with ``bench`` (ResNet-50 with FPN, CGBN, float32, without a GPU;
docs/benchmarks.md has the tables), and scale with the pixels of the padded canvas. What a GPU's
allocator and libraries take besides is not measured yet: MARGIN stands for it, as in
``memory.checkpoint=auto``.
"""

from dataclasses import dataclass
from typing import Literal

from megdet_hvd.plan.tensors import Tensors, bn_elements

Recomputation = Literal["none", "blocks", "stages"]
MIB = 2**20
GIB = 2**30
SMALL_PIXELS, SMALL_MIB = 2 * 256**2, 349.0
"""A step's peak of live tensors above weights and gradients, 2 images of 256×256."""
LARGE_PIXELS = 2 * 512**2
LARGE_MIB: dict[Recomputation, float] = {"none": 1105.0, "blocks": 440.0, "stages": 398.0}
"""The same, 2 images of 512×512, by ``memory.checkpoint``."""
FROZEN_SHARE = 241 / 349
"""Frozen BN's peak to CGBN's."""
SLOWER: dict[Recomputation, float] = {"none": 1.0, "blocks": 1.19, "stages": 1.15}
"""A step with recomputation to one without: a forward pass more. Measured there, too."""
FUSION_BYTES = 128 * MIB
MARGIN = 0.15
_R50_ELEMENTS = 11_113_984 / 224**2
"""Values of ResNet-50's BN layers for a pixel."""


@dataclass(frozen=True)
class Memory:
    """Of one GPU."""

    mode: Recomputation
    model_bytes: float
    """Weights, gradients, momentum, and Horovod's buffer."""
    live_bytes: float

    @property
    def gib(self) -> float:
        """Both together."""
        return (self.model_bytes + self.live_bytes) / GIB


def predict_memory(
    tensors: Tensors,
    images: int,
    canvas_pixels: float,
    *,
    value_bytes: int,
    mode: Recomputation,
    frozen: bool,
    size_factor: float,
) -> Memory:
    """What a step needs.

    Args:
        tensors: of the model.
        images: in one pass.
        canvas_pixels: of the largest padded canvas.
        value_bytes: of an activation; 2 halves all of them, which mixed precision does not quite.
        mode: what is recomputed.
        frozen: BN takes no statistics.
        size_factor: activations of the backbone to ResNet-50's.
    """
    share = LARGE_MIB[mode] / LARGE_MIB["none"]
    per_pixel = (LARGE_MIB["none"] - SMALL_MIB) / (LARGE_PIXELS - SMALL_PIXELS)
    constant = SMALL_MIB - per_pixel * SMALL_PIXELS
    live = constant + share * per_pixel * images * canvas_pixels * size_factor * value_bytes / 4
    live *= FROZEN_SHARE if frozen else 1.0
    model = 4 * tensors.held + 8 * tensors.trained + FUSION_BYTES
    return Memory(mode, model, live * MIB)


def backbone_factor(with_statistics: Tensors) -> float:
    """Activations of a backbone's BN layers to ResNet-50's; layers of heads count nothing here."""
    return bn_elements(with_statistics, 1.0, 0) / _R50_ELEMENTS


def fits(memory: Memory, capacity_gib: float) -> bool:
    """With MARGIN left free."""
    return memory.gib <= capacity_gib * (1 - MARGIN)
