"""What a step works on, so that two sides are known to do the same work."""

from dataclasses import asdict, dataclass

from megdet_hvd.errors import RunError

PROPOSALS_APART = 0.01
"""Largest relative difference: in another order of sums a few scores fall otherwise."""


@dataclass(frozen=True)
class StepCounts:
    """Of one step, over all of its pictures."""

    canvas: tuple[int, int, int]
    """Pictures, height and width of what the backbone gets."""
    proposals: int
    """After non-maximum suppression."""
    anchors: int
    """Sampled for the RPN's loss."""
    boxes: int
    """Sampled for the second stage."""

    def __str__(self) -> str:
        images, height, width = self.canvas
        return (
            f"{images} × {height}×{width} pixels, {self.proposals} proposals, "
            f"{self.anchors} anchors and {self.boxes} boxes drawn"
        )


def require_same_work(ours: StepCounts, theirs: StepCounts) -> None:
    """That two sides can be compared.

    Raises:
        RunError: they can't; it says what differs.
    """
    own, other = asdict(ours), asdict(theirs)
    different = [name for name in own if name != "proposals" and own[name] != other[name]]
    if abs(ours.proposals - theirs.proposals) > PROPOSALS_APART * theirs.proposals:
        different.append("proposals")
    if different:
        told = "; ".join(f"{name}: {own[name]} here, {other[name]} there" for name in different)
        raise RunError(f"the sides do not do the same work ({told}), so their times say nothing")
