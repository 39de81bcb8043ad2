"""What CGBN adds to a step: messages that block, and activations read more often."""

from megdet_hvd.plan.collectives import Fabric, allreduce_s
from megdet_hvd.plan.tensors import Tensors, bn_message_bytes

MORE_PASSES = 4
"""Over the activations of a BN layer, beside frozen BN, whose statistics are constants. Forward
reads the input once more. Backward reads gradient and input for the two sums, and both again for
the input's gradient, which it writes: five passes, where frozen BN has two."""


def messages_s(
    tensors: Tensors, ranks: int, machines: int, fabric: Fabric, waiting_s: float
) -> float:
    """Seconds of one pass's BN messages over a group of ``ranks`` on ``machines``.

    Each message blocks: a layer can't go on without its statistics, nor the backward pass without
    the sums. 0 where each process has its own statistics.
    """
    if ranks == 1:
        return 0.0
    return sum(
        waiting_s + allreduce_s(size, ranks, machines, fabric)
        for layer in tensors.bn_layers
        for size in bn_message_bytes(layer)
    )


def own_work_s(elements: float, value_bytes: float, memory_gb_s: float) -> float:
    """Seconds that statistics and their gradient take beyond frozen BN's, at memory's bandwidth.

    Args:
        elements: values that all BN layers normalise in a pass.
        value_bytes: of one.
        memory_gb_s: the GPU's memory bandwidth, 10⁹ bytes/s.
    """
    return MORE_PASSES * elements * value_bytes / (memory_gb_s * 1e9)
