"""What CGBN and recomputation cost against the BN size, on two processes (the paper's "slight").

With n pictures on each of two processes a statistic is over 2n: a larger BN size takes more
pictures a process, and recomputation where they do not fit. Sides take turns; times are medians of
the slower process, a picture each.
"""

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megdet_hvd.bench.launch import measure_or_end_all
from megdet_hvd.cli import make_parser, parse
from megdet_hvd.command import leave
from megdet_hvd.config.load import load_config

SIDES = ("frozen BN", "plain BN", "CGBN", "CGBN, recomputed")
BOXES, CLASSES = 4, 6


def main(argv: Sequence[str] | None = None) -> int:
    """The part that runs in every process; rank 0 writes the file."""
    parser = make_parser("megdet_hvd.lab.overhead", (__doc__ or "").split("\n")[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--bn-sizes", type=int, nargs="+", required=True)
    parser.add_argument("--turns", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    return measure_or_end_all(_measure, parse(parser, argv))


def _measure(options: Any) -> int:
    import torch

    from megdet_hvd.job.exchange import barrier, gather_objects
    from megdet_hvd.job.session import start, stop

    config = load_config(options.config, options.overrides)
    world = start()
    torch.set_num_threads(world.cores)
    rows = []
    for size in options.bn_sizes:
        images = size // world.size
        sides = {name: _step(config, name, images) for name in SIDES}
        times: dict[str, list[float]] = {name: [] for name in SIDES}
        for turn in range(options.turns + 1):
            for name, take in sides.items():
                barrier(world, "turn")
                began = time.perf_counter()
                take()
                if turn:
                    times[name].append(time.perf_counter() - began)
        row: dict[str, Any] = {"bn_size": size, "images_per_process": images}
        for name, taken in times.items():
            row[name] = seconds_a_picture(gather_objects(taken, world, "t"), size)
        rows.append(row)
    if world.is_main:
        text = json.dumps({"processes": world.size, "carrier": config.bn.carrier, "rows": rows})
        options.out.write_text(text, encoding="utf-8")
    barrier(world, "end")
    stop()
    return 0


def seconds_a_picture(ranks: Sequence[Sequence[float]], pictures: int) -> float:
    """Median over turns of the slowest rank's seconds, a picture of all ranks' together.

    Args:
        ranks: seconds of every turn, by rank.
        pictures: of one turn, on all ranks.
    """
    slowest: list[float] = [max(turn) for turn in zip(*ranks, strict=True)]
    return statistics.median(slowest) / pictures


def _step(config: Any, side: str, images: int) -> Any:
    """One training step of the lab's detector on made-up pictures, gradients averaged."""
    import horovod.torch as hvd
    import torch

    from megdet_hvd.bn import convert_cross_gpu_bn
    from megdet_hvd.memory.probe import made_up
    from megdet_hvd.memory.recompute import recompute_segments
    from megdet_hvd.model.build import build_detector, local_norm

    norm = "frozen" if side.startswith("frozen") else "bn"
    model = config.model.model_copy(update={"norm": norm})
    detector = build_detector(model, CLASSES, local_norm(model), seed=0)
    if side.startswith("CGBN"):
        convert_cross_gpu_bn(detector, carrier=config.bn.carrier)
    if side.endswith("recomputed"):
        recompute_segments(detector, "blocks")
    detector.train()
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(detector.parameters(), lr=1e-9),
        named_parameters=detector.named_parameters(),
        num_groups=1,
    )
    side_pixels = config.data.max_size
    batch = made_up(images, (side_pixels, side_pixels), BOXES, CLASSES)

    def take() -> None:
        optimizer.zero_grad()
        sum(part.sum() for part in detector(batch).values()).backward()
        optimizer.step()

    return take


if __name__ == "__main__":
    leave(main)
