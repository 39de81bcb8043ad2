"""Memory that a GPU fetches pictures from by itself, while this process goes on."""

import logging

import torch
from torch import Tensor

from megdet_hvd.data.room import Room

LOGGER = logging.getLogger("megdet_hvd")


class PinnedRoom:
    """Gives room that stays where it is; plain room once the system gives no more of that.

    Called in the loader's thread: whoever trains then finds pictures that are ready to be fetched.
    torch keeps what was fetched for the next batch, and waits with that for the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        """``device``: of CUDA, the one of this process: pinning makes a context on its GPU."""
        self._device = device
        self._plain = False

    def __call__(self, size: int) -> Tensor:
        """So many bytes, (n,) uint8."""
        if not self._plain:
            try:
                with torch.cuda.device(self._device):
                    return torch.empty(size, dtype=torch.uint8, pin_memory=True)
            except RuntimeError as error:
                self._plain = True
                LOGGER.warning(
                    f"warning: the system gives no pinned memory for pictures ({error}); their way "
                    "to the GPU is slower. Its limit: `ulimit -l`, or the job's memory"
                )
        return torch.empty(size, dtype=torch.uint8)


def room_before(device: torch.device | None) -> Room | None:
    """Where pictures lie on their way to a device; None: anywhere."""
    return PinnedRoom(device) if device is not None and device.type == "cuda" else None
