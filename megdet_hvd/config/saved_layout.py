"""What a checkpoint says of the processes it was made on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from megdet_hvd.serialize import serializable


@serializable
@dataclass(frozen=True)
class SavedLayout:
    """How a run's batch lay on its processes when a checkpoint was written."""

    global_batch: int
    """Pictures per optimizer step."""
    processes: int
    """All of them."""
    accumulation: int
    """Backward passes per step."""
    norm: str
    """``model.norm``."""
    bn_images: tuple[int, ...] | None
    """The different BN sizes (images per statistic), ascending: one, or several on machines of
    unequal size; empty where no statistics are taken; None: it doesn't say."""
    config: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """The resolved configuration it was made with, as plain data; empty: it doesn't say."""
    filed: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    """What the run folder's file said then of the settings that a resume fits to its processes
    (:data:`megdet_hvd.config.elastic_resume.MAY_STAND`); None: it doesn't say."""

    @property
    def images(self) -> int:
        """Pictures of one process in one backward pass."""
        return self.global_batch // (self.processes * self.accumulation)


def saved_layout_of(content: Mapping[str, Any]) -> SavedLayout:
    """Read it from a checkpoint's plain values; no tensor is looked at.

    All of it follows from the resolved configuration that each checkpoint holds, the number of
    processes and the groups that shared statistics, so there is no second record to disagree.

    Raises:
        KeyError, TypeError, ValueError: the checkpoint lacks them.
    """
    config = content["config"]
    batch, passes = int(config["global_batch"]), int(config["learning"]["accumulation"])
    processes = int(content["world"])
    norm, size = str(config["model"]["norm"]), config["bn"]["size"]
    images = batch // (processes * passes)
    groups = content.get("bn_groups")
    found: tuple[int, ...] | None
    if norm in ("frozen", "none"):
        found = ()
    elif norm == "bn":
        found = (images,)
    elif size is not None:
        found = (int(size),)
    elif groups is None:
        found = None
    else:
        found = tuple(sorted({len(group) * images for group in groups}))
    return SavedLayout(batch, processes, passes, norm, found, config, content.get("filed"))
