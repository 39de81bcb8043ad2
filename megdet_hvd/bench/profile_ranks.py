"""The part of ``bench profile`` that runs in every process: two sums through Horovod."""

import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from megdet_hvd.bench.launch import measure_or_end_all
from megdet_hvd.cli import make_parser, parse
from megdet_hvd.job.exchange import barrier, gather_objects
from megdet_hvd.job.horovod_settings import HOROVODS_OWN, settings_on
from megdet_hvd.job.session import start, stop
from megdet_hvd.model.device import pick_device

BN_VALUES = 2 * 256 + 1
"""A BN message of 256 channels, in doubles."""
LARGE_VALUES = 16 << 20
"""64 MiB of float32."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure in this process; rank 0 writes the file."""
    parser = make_parser(
        "megdet_hvd.bench.profile_ranks", (__doc__ or "").split("\n")[0], settings=False
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="auto")
    return measure_or_end_all(_measure, parse(parser, argv))


def _measure(options: Any) -> int:
    import horovod.torch as hvd

    on_gpu = torch.cuda.is_available() and options.device != "cpu"
    settings = settings_on(gpu=on_gpu)
    world = start(settings=settings)
    torch.set_num_threads(world.cores)
    device = pick_device(options.device, world.local_rank, world.local_size)
    if device.type == "cuda":
        torch.cuda.set_device(device)

    def seconds(vector: torch.Tensor, name: str, repeats: int) -> float:
        """Of one blocking sum: each turn's slowest rank, median over the turns."""
        taken = []
        for turn in range(repeats + 2):
            barrier(world, "turn")
            began = time.perf_counter()
            hvd.allreduce_(vector, name=name, op=hvd.Sum)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn > 1:
                taken.append(time.perf_counter() - began)
        every = gather_objects(taken, world, "times")
        return float(statistics.median(map(max, zip(*every, strict=True))))

    small = seconds(torch.zeros(BN_VALUES, dtype=torch.float64, device=device), "small", 100)
    large = seconds(torch.zeros(LARGE_VALUES, device=device), "large", options.repeats)
    if world.is_main:
        passed = 4 * LARGE_VALUES * 2 * (world.size - 1) / world.size
        found = {
            "cycle_ms": settings.cycle_time_ms or float(HOROVODS_OWN["HOROVOD_CYCLE_TIME"]),
            "sum_us": 1e6 * small,
            "bus_gb_s": passed / max(large - small, 1e-9) / 1e9,
        }
        options.out.write_text(json.dumps(found), encoding="utf-8")
    barrier(world, "bench end")
    stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
