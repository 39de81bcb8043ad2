"""One part of the bench of what grows, in a process of its own: ``bench growth`` starts it.

Each part makes its input, then measures; what making it took is not counted.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from megdet_hvd.bench.peak import forget_peak, peak_bytes
from megdet_hvd.command import leave, need_environment

if __name__ == "__main__":
    need_environment()

NUMBERS = (
    *("loss", "rpn_class", "rpn_box", "class", "box", "rpn_foreground", "box_foreground"),
    *("rpn_foreground_spread", "box_foreground_spread", "rate", "images_per_s", "step_s"),
    *("data_s", "split_step_s", "split_compute_s", "split_bn_s", "split_gradients_s"),
    *("split_waiting_s", "split_data_s", "slowest_rank_s"),
)
"""Of a line of metrics."""
LINES_AN_EPOCH = 7393
"""COCO's, in batches of 16, a line each."""
DETECTIONS = 100
"""Of a picture."""
RANKS = 128
BN_LAYERS = 53
"""ResNet-50's; one message each way."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one part; a line of JSON says what it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("size", type=int)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(PARTS[options.part](options.size, Path(place))))
    return 0


def measured(work: Callable[[], Any]) -> dict[str, float]:
    """Processor seconds, and MB that the process had at most beyond what it had before."""
    before = forget_peak()
    began = time.process_time()
    work()
    took = time.process_time() - began
    return {"processor_s": took, "mb": (peak_bytes() - before) / 1e6}


def written_metrics(lines: int, folder: Path) -> Path:
    """A run's ``metrics.jsonl`` with so many training lines, and one evaluation an epoch."""
    file, draw = folder / "metrics.jsonl", random.Random(0)
    with file.open("w", encoding="utf-8") as out:
        for iteration in range(1, lines + 1):
            record: dict[str, Any] = {"kind": "train", "iteration": iteration}
            record |= {"epoch": iteration / LINES_AN_EPOCH, "images_seen": 16 * iteration}
            record |= {name: draw.random() for name in NUMBERS}
            out.write(json.dumps(record) + "\n")
            if iteration % LINES_AN_EPOCH == 0:
                numbers = {"AP": draw.random(), "AP50": draw.random(), "AP75": draw.random()}
                record = {"kind": "eval", "iteration": iteration, **numbers}
                out.write(json.dumps(record) + "\n")
    return file


def curves(size: int, folder: Path) -> dict[str, float]:
    """Curves drawn once more, after all lines were read and drawn before."""
    from megdet_hvd.report.curves import draw_curves
    from megdet_hvd.report.growing_metrics import GrowingMetrics

    growing = GrowingMetrics(written_metrics(size, folder))

    def draw() -> None:
        draw_curves(growing.read(), folder / "curves.png")

    first = measured(draw)
    return {**measured(draw), "mb": first["mb"]}


def standing(size: int, folder: Path) -> dict[str, float]:
    """Where a run stands, as ``--status`` and the last lines of a run read it."""
    from megdet_hvd.report.metrics_file import read_standing

    file = written_metrics(size, folder)
    return measured(lambda: read_standing(file))


def resume(size: int, folder: Path) -> dict[str, float]:
    """The last hundred iterations forgotten, as by a resume."""
    from megdet_hvd.engine.run_folder.folder import forget_after

    file = written_metrics(size, folder)
    return measured(lambda: forget_after(file, size - 100))


def results(size: int, folder: Path) -> dict[str, float]:
    """Detections of so many pictures from 128 ranks, as rank 0 takes them in for scoring."""
    del folder
    import torch

    from megdet_hvd.data.batch import Detections
    from megdet_hvd.evaluation.boxes import flatten
    from megdet_hvd.evaluation.gather import pack, unpack
    from megdet_hvd.serialize import dumps, loads

    def share(rank: int) -> bytes:
        found = {
            picture: Detections(
                torch.rand(DETECTIONS, 4), torch.rand(DETECTIONS), torch.ones(DETECTIONS).long()
            )
            for picture in range(rank, size, RANKS)
        }
        return bytes(dumps(pack(found)))

    shares = [share(rank) for rank in range(RANKS)]

    def take_in() -> None:
        gathered: dict[int, Detections] = {}
        for one in shares:
            gathered |= unpack(loads(one))
        flatten(gathered)

    return measured(take_in)


def split(size: int, folder: Path) -> dict[str, float]:
    """The split of a step's time over so many ranks, as rank 0 works it out for a line."""
    del folder
    from megdet_hvd.engine.step.time_split import split_of
    from megdet_hvd.serialize import dumps, loads

    waits = [
        (f"megdet.bn.layer{layer}.{way}", 0, 0.001)
        for way in ("forward", "backward")
        for layer in range(BN_LAYERS)
    ]
    told = dumps([1.0, 0.1, [*waits, ("megdet.gradients", 0, 0.01)]])
    repeats = 5

    def work_out() -> None:
        for _ in range(repeats):
            split_of([loads(told) for _ in range(size)])

    found = measured(work_out)
    return {**found, "processor_s": found["processor_s"] / repeats}


PARTS: dict[str, Callable[[int, Path], dict[str, float]]] = {
    one.__name__: one for one in (curves, standing, resume, results, split)
}


if __name__ == "__main__":
    sys.argv[0] = str(Path(__file__))
    leave(main)
