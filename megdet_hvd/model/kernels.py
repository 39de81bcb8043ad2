"""Which of two ways of computing the same a run uses, and how it goes on with the one it has.

Two kernels agree up to the order of sums, which is enough for a run that is carried on to leave
the bits of one that was not. So where a setting is ``auto``, a run keeps what it began with: its
checkpoints say what that is (:func:`begun_with`), and :func:`go_on_with` takes it up.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

FORMER = {
    "bn": "torch",
    "linear": "torch",
    "memory_format": "contiguous",
    "roi_align": "torchvision",
    "rpn_gradient": "dense",
}
"""Of every run whose checkpoints don't say."""


@dataclass
class KernelChoice:
    """A module's ``choice`` of a kernel."""

    name: str
    """In checkpoints."""
    setting: str
    """One of the kernels, or ``auto``."""
    new: str
    """What ``auto`` is in a new run."""
    begun_with: str | None = None
    """What ``auto`` was when this run began; None: it is new."""

    @property
    def kernel(self) -> str:
        """The kernel; on a GPU a module may have reasons for another one."""
        return self.setting if self.setting != "auto" else self.begun_with or self.new


def begun_with(detector: nn.Module) -> dict[str, str]:
    """The kernels of all its choices, for a checkpoint."""
    return {choice.name: choice.kernel for choice in _choices(detector)}


def go_on_with(detector: nn.Module, kernels: Mapping[str, str] | None) -> None:
    """Let ``auto`` be what it was: ``kernels`` of a checkpoint; None: it does not say."""
    known = FORMER | dict(kernels or {})
    for choice in _choices(detector):
        choice.begun_with = known[choice.name]


def _choices(detector: nn.Module) -> list[KernelChoice]:
    found = [getattr(module, "choice", None) for module in detector.modules()]
    return [choice for choice in found if isinstance(choice, KernelChoice)]
