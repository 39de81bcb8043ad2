"""The measurement itself: a small and a large all-reduce, then exchanges between pairs of ranks.

Everything goes through Horovod, as gradients do, and on the device that training computes on.
Sizes follow what the network was seen to do, so that a slow one takes seconds too.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from megdet_hvd.comm.position import waiting
from megdet_hvd.job.exchange import gather_objects
from megdet_hvd.job.world import World
from megdet_hvd.preflight.links import Exchange
from megdet_hvd.preflight.rounds import between_machines, within_machines

SMALL_BYTES = 1024
LARGE_BYTES = 64 * 2**20
"""The largest all-reduce: as much as Horovod fuses gradients to, roughly."""
ENOUGH_S = 0.05
"""A message that takes so long is large enough."""
_REPEATS_SMALL = 10
_REPEATS_PAIR = 3
_PAIR_BYTES = 16 * 2**20


@dataclass(frozen=True)
class AllReduce:
    """An all-reduce over all ranks; times are those of the slowest rank."""

    ranks: int
    small_s: float
    large_bytes: int
    large_s: float

    def __str__(self) -> str:
        mib = self.large_bytes / 2**20
        rate = self.large_bytes / self.large_s / 1e6
        return (
            f"all-reduce over {self.ranks} ranks: {self.small_s * 1e6:.0f} µs for 1 KiB; "
            f"{mib:g} MiB in {self.large_s * 1e3:.1f} ms, {rate:.0f} MB/s"
        )


def measure(world: World, device: torch.device) -> tuple[AllReduce, list[Exchange]]:
    """Measure all-reduce and links. Every process calls it together; equal on all of them."""
    reduced = _all_reduce(world, device)
    # Of what is large for all ranks together, half is large enough for two.
    large = max(4 * SMALL_BYTES, min(reduced.large_bytes // 2, _PAIR_BYTES))
    exchanges: list[Exchange] = []
    rounds = [*between_machines(world.machines), *within_machines(world.machines)]
    for number, pairs in enumerate(rounds):
        partner = {a: b for a, b in pairs} | {b: a for a, b in pairs}
        own = partner.get(world.rank)
        name = f"megdet.preflight.round.{number}"
        small_s = _exchange(world, device, own, SMALL_BYTES, f"{name}.small")
        large_s = _exchange(world, device, own, large, f"{name}.large")
        times = gather_objects((small_s, large_s), world, f"preflight.round.{number}")
        for a, b in pairs:
            small_s, large_s = (max(times[a][i], times[b][i]) for i in (0, 1))
            exchanges.append(Exchange(a, b, SMALL_BYTES, large, small_s, large_s))
    return reduced, exchanges


def _all_reduce(world: World, device: torch.device) -> AllReduce:
    import horovod.torch as hvd

    def reduce(size: int, name: str) -> Callable[[], object]:
        tensor = torch.zeros(size // 4, device=device)
        return lambda: hvd.allreduce_(tensor, op=hvd.Sum, name=name)

    small = reduce(SMALL_BYTES, "megdet.preflight.small")
    times = [_timed(small, world, device, "megdet.preflight.small") for _ in range(_REPEATS_SMALL)]
    small_s = max(gather_objects(sorted(times)[len(times) // 2], world, "preflight.small"))
    size = 256 * 1024
    while True:
        name = f"megdet.preflight.large.{size}"
        operation = reduce(size, name)
        # The first of a size pays for buffers and, on a GPU, for connections.
        first = max(gather_objects(_timed(operation, world, device, name), world, name))
        if first > 20 * ENOUGH_S:
            return AllReduce(world.size, small_s, size, first)
        large_s = max(gather_objects(_timed(operation, world, device, name), world, name))
        if large_s >= ENOUGH_S or size >= LARGE_BYTES:
            return AllReduce(world.size, small_s, size, large_s)
        size = min(size * 4, LARGE_BYTES)


def _timed(operation: Callable[[], object], world: World, device: torch.device, name: str) -> float:
    """Seconds of one collective, from when all ranks are ready for it to when it is done here."""
    _ready(world)
    with waiting(name, range(world.size)):
        began = time.perf_counter()
        operation()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began


def _ready(world: World) -> None:
    """Return when all ranks have come here, within the time of a small message."""
    import horovod.torch as hvd

    with waiting("megdet.preflight.ready", range(world.size)):
        hvd.allreduce(torch.zeros(1), op=hvd.Sum, name="megdet.preflight.ready")


def _exchange(
    world: World, device: torch.device, partner: int | None, size: int, name: str
) -> float:
    """The shortest of several exchanges with ``partner``; None: this rank only takes part."""
    import horovod.torch as hvd

    # Nobody's message is empty: a rank without a partner sends a little to itself.
    to, count = (world.rank, 1) if partner is None else (partner, size // 4)
    tensor = torch.zeros(count, device=device)
    splits = torch.zeros(world.size, dtype=torch.int32)
    splits[to] = count
    times: Sequence[float] = [
        _timed(lambda: hvd.alltoall(tensor, splits=splits, name=name), world, device, name)
        for _ in range(_REPEATS_PAIR)
    ]
    return min(times)
