"""Which kernels CGBN's sums run on, on GPUs: our own, once they have been checked, or torch's.

Both give the same up to the order of sums, so a run goes on with those that it began with.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from megdet_hvd.bn import CrossGPUBatchNorm2d, use_fused_kernels
from megdet_hvd.bn.fused_check import difference
from megdet_hvd.bn.fused_kernels import FusedKernels, load
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError, text_of
from megdet_hvd.job.agree import mark_agreed
from megdet_hvd.job.exchange import gather_objects
from megdet_hvd.job.world import World
from megdet_hvd.model.kernels import KernelChoice

Loader = Callable[[torch.device, Sequence[torch.dtype]], FusedKernels]
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
"""Of what a BN layer gets, by ``precision``; else float32. Other types take torch's kernels."""


@dataclass
class BnKernels:
    """What a run's CGBN layers can use."""

    choice: KernelChoice
    on_gpu: bool
    fused: FusedKernels | None
    """None: on no GPU, not asked for, or not to be had."""
    problem: str | None
    """Why they are not to be had."""

    def put_to_use(self, detector: nn.Module) -> str | None:
        """Give them to the layers, if the run is to have them; returns a line for the log.

        After a checkpoint, which knows what the run began with, has been taken up.
        """
        wanted = self.choice.kernel == "fused"
        use_fused_kernels(detector, self.fused if wanted else None)
        if not self.on_gpu:
            return None
        if wanted and self.fused is not None:
            return "CGBN's sums: on kernels of our own, which compute here what torch's do"
        if wanted:
            return (
                "CGBN's sums: on torch's kernels, though the run began with our own, which can't "
                f"be used here: {self.problem}; last bits differ"
            )
        if self.problem is not None:
            return f"CGBN's sums: on torch's kernels; our own can't be used here: {self.problem}"
        why = "bn.kernels=torch" if self.choice.setting == "torch" else "the run began with them"
        return f"CGBN's sums: on torch's kernels ({why})"


def find_bn_kernels(
    detector: nn.Module,
    config: Config,
    world: World,
    device: torch.device,
    loader: Loader = load,
) -> BnKernels | None:
    """Load and check them where they may be wanted; all ranks call it together, and find alike.

    ``detector`` is on ``device``. None: it has no CGBN layers.

    Raises:
        UserError: on all ranks alike: ``bn.kernels=fused``, and they can't be used.
    """
    layers = _layers(detector)
    if not layers:
        return None
    setting, on_gpu = config.bn.kernels, device.type == "cuda"
    fused, problem = None, None
    if on_gpu and setting != "torch":
        fused, own = _loaded(device, _DTYPES.get(config.precision, torch.float32), loader)
        found = gather_objects(own, world, "bn kernels")
        problem = next((f"rank {r}: {text}" for r, text in enumerate(found) if text), None)
        if problem is not None:
            fused = None
        if problem is not None and setting == "fused":
            raise mark_agreed(
                UserError(
                    f"bn.kernels=fused, and they can't be used: {problem}; set bn.kernels=auto, "
                    "which takes torch's then"
                )
            )
    choice = KernelChoice("bn", setting, "fused" if problem is None else "torch")
    for layer in layers:
        layer.choice = choice  # type: ignore[assignment]  # one for all
    return BnKernels(choice, on_gpu, fused, problem)


def _loaded(
    device: torch.device, dtype: torch.dtype, loader: Loader
) -> tuple[FusedKernels | None, str | None]:
    """The kernels, or why they can't be used by this process."""
    try:
        found = loader(device, [dtype])
        differs = difference(found, [dtype])
    except RuntimeError as error:  # CUDA's or torch's: of one rank, and a reason for all
        return None, text_of(error)
    return (found, None) if differs is None else (None, differs)


def _layers(detector: nn.Module) -> list[CrossGPUBatchNorm2d]:
    return [one for one in detector.modules() if isinstance(one, CrossGPUBatchNorm2d)]
