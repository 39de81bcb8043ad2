"""Whether gradients are sent as each becomes ready, or held back until all of a step are."""

from typing import NamedTuple

from megdet_hvd.config.schema import Config


class GradientOrder(NamedTuple):
    """When a step's gradients go out."""

    held: bool
    """All together once the last is ready; else each as it becomes ready, beside the backward."""
    reason: str
    """For the log."""

    def __str__(self) -> str:
        return f"gradients go {'once all are' if self.held else 'as each is'} ready: {self.reason}"


def gradient_order(config: Config, bn_is_shared: bool) -> GradientOrder:
    """As ``horovod.gradients`` says; ``auto``: as each is ready, if no BN sum can wait behind one.

    ``bn_is_shared``: whether processes of the job sum BN statistics; the same on all of them.

    Horovod has one thread and, on GPUs, one stream for all sums. A layer that waits for a BN sum
    there waits for every gradient that was sent before it too, so these are held. Sums of
    ``bn.carrier=mpi`` don't pass Horovod. Those of ``peer`` don't either, but wait on the GPUs for
    other ranks, as sums of gradients do: with both under way, each could wait for a rank that waits
    for the other.
    """
    wanted = config.horovod.gradients
    if config.deterministic:
        # Fusion is off, unless the environment says otherwise: then, too, what is fused does not
        # depend on timing.
        return GradientOrder(True, "deterministic=true")
    if bn_is_shared and config.bn.carrier == "peer":
        return GradientOrder(True, "no BN sum on the GPUs waits beside one (bn.carrier=peer)")
    if wanted != "auto":
        return GradientOrder(wanted == "held", f"horovod.gradients={wanted}")
    if not bn_is_shared:
        return GradientOrder(False, "no BN sum could wait behind one")
    carrier = config.bn.carrier
    if carrier == "mpi":
        return GradientOrder(False, "BN sums go past Horovod (bn.carrier=mpi)")
    return GradientOrder(True, f"no BN sum waits behind one (bn.carrier={carrier})")
