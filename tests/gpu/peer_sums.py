"""Times of bn.carrier=peer on one GPU, whose streams are the ranks. Nothing here waits for ever.

``python -m tests.gpu.peer_sums`` prints a line of JSON for 2, 4 and 8 ranks. What is expected of
them (all *predicted*; no GPU has run it yet) is in PREDICTED.
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch

from megdet_hvd.comm.peer.memory import GpuAccess, gpu_access
from megdet_hvd.comm.peer.self_test import known_vector
from megdet_hvd.command import leave
from tests.comm.peer.one_process import OneRank, ranks_of_this_process

RESNET50 = (64, *((64, 64, 256) * 3), 256, *((128, 128, 512) * 4), 512, *((256, 256, 1024) * 6))
CHANNELS = (*RESNET50, 1024, *((512, 512, 2048) * 3), 2048)
"""Of ResNet-50's 53 BN layers, in no order that matters here."""
LENGTHS = (*(1 + 2 * c for c in CHANNELS), *(2 * c for c in CHANNELS))
"""Of a step's 106 sums."""
PATIENCE_S = 5.0
PREDICTED = {
    "graph_us": "4 to 6 a sum for 2 ranks, at most 30 for 8 (all ranks share one GPU's memory)",
    "host_us": "6 to 10 a launch: 4 of Python (of a CPU, measured), the rest the driver's",
    "wrong": "0",
}


@dataclass(frozen=True)
class PeerTimes:
    """Of one group."""

    ranks: int
    sums: int
    """Of a step."""
    wrong: int
    """Sums that are not those of the host to the bit, on any rank."""
    eager_us: float
    """A sum, when one host launches it for all ranks: at least ``ranks`` times host_us."""
    host_us: float
    """Of the host, for one launch."""
    lost: tuple[str, ...]
    """What ranks told of lost sums."""
    graph_us: float | None = None
    """A sum in a CUDA graph for each rank; None: not asked for."""
    graph_wrong: int = 0
    graph_lost: tuple[str, ...] = ()
    """As the others. Where the launch of a graph waits for that of another rank, which waits for
    it, sums are lost after PATIENCE_S here, and it says nothing of the kernel."""


def check_queues(ranks: int) -> None:
    """Each stream needs a hardware queue of its own, where a sum waits for those of the others.

    Raises:
        ValueError: CUDA was given too few.
    """
    queues = int(os.environ.get("CUDA_DEVICE_MAX_CONNECTIONS", "8"))
    if queues <= ranks:
        raise ValueError(
            f"{ranks} ranks as streams, and the default one, share {queues} hardware queues, and "
            f"could wait for ever: set CUDA_DEVICE_MAX_CONNECTIONS=32 before CUDA starts"
        )


def time_streams(
    access: GpuAccess,
    streams: Sequence[int],
    *,
    lengths: Sequence[int] = LENGTHS,
    rounds: int = 20,
) -> PeerTimes:
    """Sums of a step, by ranks that are ``streams``, launched ``rounds`` times."""
    ranks = ranks_of_this_process(access, range(len(streams)), streams, patience_s=PATIENCE_S)
    parts = _parts(access, len(ranks), lengths)
    _step(ranks, parts)
    _synchronise(access)
    wrong = _wrong(parts)
    parts = [[torch.zeros_like(part) for part in one] for one in parts]  # zeros stay what they are
    _synchronise(access)
    began = time.perf_counter()
    for _ in range(rounds):
        _step(ranks, parts)
    launched = time.perf_counter()
    _synchronise(access)
    ended = time.perf_counter()
    sums = rounds * len(lengths)
    return PeerTimes(
        len(ranks),
        len(lengths),
        wrong,
        1e6 * (ended - began) / sums,
        1e6 * (launched - began) / sums / len(ranks),
        _lost(ranks),
    )


def time_graphs(
    access: GpuAccess, streams: Sequence[torch.cuda.Stream], rounds: int
) -> tuple[float, int, tuple[str, ...]]:
    """When each rank replays a graph of a step: µs a sum, wrong sums, and what was lost."""
    handles = [stream.cuda_stream for stream in streams]
    ranks = ranks_of_this_process(access, range(len(streams)), handles, patience_s=PATIENCE_S)
    parts = _parts(access, len(ranks), LENGTHS)
    given = [[part.clone() for part in one] for one in parts]
    torch.cuda.synchronize()
    graphs = []
    for place, (rank, stream) in enumerate(zip(ranks, streams, strict=True)):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for number, one in enumerate(parts):
                rank.add_up(one[place], f"step.{number}")
        graphs.append(graph)

    def replay() -> None:
        for graph, stream in zip(graphs, streams, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()

    torch._foreach_copy_([p for one in parts for p in one], [p for one in given for p in one])
    torch.cuda.synchronize()
    replay()
    torch.cuda.synchronize()
    wrong = _wrong(parts)
    torch._foreach_zero_([part for one in parts for part in one])
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(rounds):
        replay()
    torch.cuda.synchronize()
    return 1e6 * (time.perf_counter() - began) / (rounds * len(parts)), wrong, _lost(ranks)


def times_on_gpu(count: int, rounds: int = 20) -> PeerTimes:
    """All of it for ``count`` ranks on the current GPU."""
    check_queues(count)
    device = torch.device("cuda", torch.cuda.current_device())
    access = gpu_access(device)
    streams = [torch.cuda.Stream(device) for _ in range(count)]
    found = time_streams(access, [s.cuda_stream for s in streams], rounds=rounds)
    graph_us, wrong, lost = time_graphs(access, streams, rounds)
    return replace(found, graph_us=graph_us, graph_wrong=wrong, graph_lost=lost)


def _lost(ranks: Sequence[OneRank]) -> tuple[str, ...]:
    return tuple(text for text in (rank.sums.lost() for rank in ranks) if text)


def _parts(access: GpuAccess, count: int, lengths: Sequence[int]) -> list[list[torch.Tensor]]:
    """[sum][rank]"""
    return [
        [known_vector(place, number, length).to(access.device) for place in range(count)]
        for number, length in enumerate(lengths)
    ]


def _step(ranks: Sequence[OneRank], parts: Sequence[Sequence[torch.Tensor]]) -> None:
    for number, one in enumerate(parts):
        for rank, part in zip(ranks, one, strict=True):
            rank.add_up(part, f"step.{number}")


def _wrong(parts: Sequence[Sequence[torch.Tensor]]) -> int:
    found = 0
    for number, one in enumerate(parts):
        right = known_vector(0, number, len(one[0]))
        for place in range(1, len(one)):
            right += known_vector(place, number, len(one[0]))
        found += sum(not torch.equal(part.cpu(), right) for part in one)
    return found


def _synchronise(access: GpuAccess) -> None:
    with access.driver.in_primary_context(access.number):
        access.driver.synchronize()


def main() -> int:
    """A line of JSON for each number of ranks."""
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
    os.environ.setdefault("CUDA_MODULE_LOADING", "EAGER")
    failed = False
    for count in (2, 4, 8):
        times = times_on_gpu(count)
        failed |= bool(times.wrong or times.lost or times.graph_wrong or times.graph_lost)
        print(json.dumps({**asdict(times), "predicted": PREDICTED}), flush=True)
    return int(failed)


if __name__ == "__main__":
    leave(main)
