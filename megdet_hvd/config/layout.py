"""One way to lay a global batch on processes."""

from dataclasses import dataclass

from megdet_hvd.config.bn_groups import RanksByMachine
from megdet_hvd.config.saved_layout import SavedLayout


@dataclass(frozen=True)
class Layout:
    """Processes × images × passes, and who shares BN statistics."""

    machines: RanksByMachine
    """Ranks of each machine."""
    accumulation: int
    """Backward passes per step."""
    images: int
    """Pictures of one process in one pass."""
    bn_size: int | None
    """The setting ``bn.size``."""
    bn_images: tuple[int, ...]
    """The different BN sizes that come of it, ascending; empty where no statistics are taken."""

    @property
    def processes(self) -> int:
        """All of them."""
        return sum(map(len, self.machines))

    def is_as(self, before: SavedLayout) -> bool:
        """Whether nothing differs from what a checkpoint says."""
        return (
            (self.processes, self.accumulation) == (before.processes, before.accumulation)
            and before.bn_images in (None, self.bn_images)
        )  # fmt: skip
