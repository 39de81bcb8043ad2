"""What the loader hands to the model: pictures as uint8 on one canvas, and their boxes."""

from contextlib import suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor

from megdet_hvd.data.ids import Id


def fetched(values: Tensor, device: torch.device) -> Tensor:
    """A copy on ``device``; a GPU fetches it when it comes to it, and the host does not wait.

    That needs memory that stays where it is (pinned); what does not lie there is copied there.
    Where the system gives none the host waits after all; :mod:`megdet_hvd.data.pinned` tells.
    """
    if device.type == "cuda" and values.is_cpu and not values.is_pinned():
        # Pinning makes a context on the current device, which a program may have left at another.
        with suppress(RuntimeError), torch.cuda.device(device):
            values = values.pin_memory()
    return values.to(device, non_blocking=True)


@dataclass(frozen=True)
class Target:
    """Ground truth of one picture, in the pixels of the resized (and maybe flipped) picture."""

    boxes: Tensor
    """(n, 4) float32, x1 y1 x2 y2. No crowds."""
    labels: Tensor
    """(n,) int64, 1…K: contiguous labels, not the file's category ids."""

    def to(self, device: torch.device) -> "Target":
        """A copy on ``device``."""
        return Target(fetched(self.boxes, device), fetched(self.labels, device))


@dataclass(frozen=True)
class ImageInfo:
    """Where a picture came from, and how to get back to its own pixels."""

    index: int
    """Position in the data set."""
    source: int
    """Position of its annotation file in the list of files."""
    image_id: int
    """Id in that file, or a number in its place."""
    epoch: int
    """The pass over the data it was drawn in."""
    original_size: tuple[int, int]
    """Height and width of the upright picture before resizing, pixels."""
    size: tuple[int, int]
    """Height and width after resizing, pixels."""
    original_id: Id | None = None
    """The id in that file, where ``image_id`` is a number in its place."""


@dataclass(frozen=True)
class Unreadable:
    """A picture that could not be decoded."""

    file: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """The pictures one process handles in one pass. B may be 0 (a rank without images)."""

    images: Tensor
    """(B, 3, H, W) uint8 RGB, top left on a canvas whose sides are multiples of 32; the loader's
    lie in channels_last order, as they were decoded."""
    infos: tuple[ImageInfo, ...]
    """One per picture; ``size`` says which part of the canvas is picture."""
    targets: tuple[Target, ...]
    """One per picture; empty in evaluation."""
    unreadable: tuple[Unreadable, ...] = field(default=())
    """Pictures of this batch that could not be decoded, and are missing from it."""
    failed: tuple[str, ...] = field(default=())
    """Why storage did not give up others, which are missing too: nobody may go on without them."""
    dark: tuple[str, ...] = field(default=())
    """Files with more than 8 bits a value of which hardly anything is left, and what is known."""

    def __len__(self) -> int:
        return len(self.infos)

    def to(self, device: torch.device) -> "Batch":
        """A copy on ``device``."""
        return Batch(
            fetched(self.images, device),
            self.infos,
            tuple(t.to(device) for t in self.targets),
            self.unreadable,
            self.failed,
            self.dark,
        )


@dataclass(frozen=True)
class Detections:
    """What the detector found in one picture, best score first."""

    boxes: Tensor
    """(n, 4) float32, x1 y1 x2 y2, pixels of the original upright picture."""
    scores: Tensor
    """(n,) float32 in 0…1."""
    labels: Tensor
    """(n,) int64, 1…K."""
