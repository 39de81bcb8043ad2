"""How long an all-reduce takes: α–β of ring and tree, inside a machine and between machines.

NCCL's own model and constants, ``src/graph/tuning.cc`` of github.com/NVIDIA/nccl: latencies @
5067397c, lines 148-176 and 416; steps and shares of bandwidth as in @ 01afd20a (ncclTopoTuneModel).
NCCL takes what its model says is quickest, and so does :func:`allreduce_s`.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Link = Literal["nvlink", "pci"]
Protocol = Literal["LL", "LL128", "Simple"]
Algorithm = Literal["ring", "tree"]

BASE_US: dict[Algorithm, dict[Protocol, float]] = {
    "tree": {"LL": 6.8, "LL128": 14.0, "Simple": 8.4},
    "ring": {"LL": 6.6, "LL128": 14.0, "Simple": 8.4},
}
"""What a collective costs before its first hop."""
HOP_US: dict[str, dict[Algorithm, dict[Protocol, float]]] = {
    "nvlink": {
        "tree": {"LL": 0.6, "LL128": 1.25, "Simple": 4.0},
        "ring": {"LL": 0.6, "LL128": 1.9, "Simple": 3.4},
    },
    "pci": {
        "tree": {"LL": 1.0, "LL128": 1.9, "Simple": 4.0},
        "ring": {"LL": 1.0, "LL128": 2.5, "Simple": 5.7},
    },
    "net": {
        "tree": {"LL": 5.0, "LL128": 8.5, "Simple": 14.0},
        "ring": {"LL": 2.7, "LL128": 4.0, "Simple": 14.0},
    },
}
"""From one GPU to the next, by the link between them."""
SHARE: dict[Algorithm, dict[Protocol, float]] = {
    "ring": {"LL": 1 / 4, "LL128": 0.92, "Simple": 1.0},
    "tree": {"LL": 0.9 / 3.8, "LL128": 0.9 * 0.915, "Simple": 0.9},
}
"""Of the bus bandwidth that a protocol gets; LL sends a flag with every 4 bytes."""


@dataclass(frozen=True)
class Fabric:
    """What connects GPUs."""

    inside: Link
    """Between GPUs of a machine."""
    inside_gb_s: float
    """Bus bandwidth there, 10⁹ bytes/s."""
    between_gb_s: float
    """Bus bandwidth of a machine's network adapters together."""
    hop_factor: float = 1.0
    """Times NCCL's latency between machines, which is InfiniBand's."""


@lru_cache(maxsize=4096)
def allreduce_s(size_bytes: float, ranks: int, machines: int, fabric: Fabric) -> float:
    """Seconds of an all-reduce over ``ranks`` GPUs, evenly on ``machines``; 0 for one GPU."""
    return min(
        algorithm_s(algorithm, protocol, size_bytes, ranks, machines, fabric)
        for algorithm in SHARE
        for protocol in SHARE[algorithm]
    )


def algorithm_s(
    algorithm: Algorithm,
    protocol: Protocol,
    size_bytes: float,
    ranks: int,
    machines: int,
    fabric: Fabric,
) -> float:
    """The same by one algorithm and protocol.

    ring: 2(P−1) hops, 2(M−1) of them between machines; each byte passes 2(P−1)/P times.
    tree: up and down P/M − 1 GPUs of a machine and ⌊log₂ M⌋ machines; each byte twice.
    """
    assert 0 < machines <= ranks, (ranks, machines)
    if ranks == 1:
        return 0.0
    inside = HOP_US[fabric.inside][algorithm][protocol]
    between = HOP_US["net"][algorithm][protocol] * fabric.hop_factor
    if algorithm == "ring":
        hops_between = 2 * (machines - 1)
        hops_us = (2 * (ranks - 1) - hops_between) * inside + hops_between * between
        passes = 2 * (ranks - 1) / ranks
    else:
        depth = math.floor(math.log2(machines))
        hops_us = 2 * ((ranks / machines - 1) * inside + depth * between)
        passes = 2.0
    bandwidth = _bus_gb_s(ranks, machines, fabric) * 1e9 * SHARE[algorithm][protocol]
    return (BASE_US[algorithm][protocol] + hops_us) * 1e-6 + size_bytes * passes / bandwidth


def _bus_gb_s(ranks: int, machines: int, fabric: Fabric) -> float:
    """The narrowest part of the way round."""
    if machines == 1:
        return fabric.inside_gb_s
    if ranks == machines:
        return fabric.between_gb_s
    return min(fabric.inside_gb_s, fabric.between_gb_s)
