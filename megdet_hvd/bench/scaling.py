"""What more processes gain on this machine, and where the time goes: weak scaling.

``python -m megdet_hvd.bench scaling [--processes 1 2 4] [--images 2] [--steps 12] [--turns 3]``:
the training command itself on the embedded scenes, ``--images`` pictures a process. Sizes take
turns. A step is split as every training run splits it: computing, BN messages, gradients that were
left to wait for, waiting for the slowest rank, waiting for pictures.
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from megdet_hvd.bench.launch import last_words, run_into_file
from megdet_hvd.bench.record import record_file, write_record
from megdet_hvd.cli import make_parser, parse
from megdet_hvd.errors import RunError

SPLIT = ("compute_s", "bn_s", "gradients_s", "waiting_s", "data_s")
HEADS = ("compute", "BN messages", "gradients", "waiting", "pictures")
WARM_UP = 3
"""First steps that don't count."""

SplitSeconds = dict[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = make_parser("megdet_hvd.bench scaling", (__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--processes", type=int, nargs="+", default=[1, 2, 4], metavar="N")
    add("--images", type=int, default=2, help="of a process in a step")
    add("--steps", type=int, default=12, help="that count, in each turn")
    add("--turns", type=int, default=3)
    add("--json", type=record_file, metavar="FILE", help="write the record there, too")
    options = parse(parser, arguments)
    if min(*options.processes, options.images, options.steps, options.turns) < 1:
        parser.error("--processes, --images, --steps and --turns are 1 or more")
    _measure(options)
    return 0


def _measure(options: argparse.Namespace) -> None:
    import torch

    from megdet_hvd.bench.machine import describe_machine

    machine = describe_machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    print(
        f"{machine}; {options.images} pictures a process, {options.steps} steps, "
        f"{options.turns} turns",
        flush=True,
    )
    seen: dict[int, list[SplitSeconds]] = {processes: [] for processes in options.processes}
    with tempfile.TemporaryDirectory() as place:
        for turn in range(options.turns):
            for processes in options.processes:
                folder = Path(place) / f"{processes}-{turn}"
                seen[processes] += steps_of(folder, processes, options)
    medians = {
        processes: {key: statistics.median(step[key] for step in steps) for key in steps[0]}
        for processes, steps in seen.items()
    }
    print("\n".join(table(medians, options.images)))
    if options.json is not None:
        settings = {"images": options.images, "steps": options.steps, "turns": options.turns}
        write_record(options.json, machine, settings, medians=medians)


def steps_of(folder: Path, processes: int, options: argparse.Namespace) -> list[SplitSeconds]:
    """Train in ``folder``; the split of each step that counts.

    Raises:
        RunError: the training failed; what it printed is in the message's file.
    """
    from megdet_hvd.report.metrics_file import read_metrics

    words = [
        f"global_batch={options.images * processes}",
        f"learning.max_iterations={options.steps + WARM_UP}",
        "log.every_iterations=1",
        "log.tensorboard=false",
        "evaluation.untrained=false",
        "evaluation.every_epochs=0",
        "evaluation.max_images=1",
        *options.overrides,
    ]
    output = folder.with_suffix(".txt")
    code = run_into_file(["megdet_hvd.train", "--run", str(folder), *words], processes, output)
    if code:
        raise RunError(
            f"training with {processes} processes failed (exit code {code}); its last words: "
            f"{last_words(output)}"
        )
    lines = read_metrics(folder / "metrics.jsonl").train[WARM_UP:]
    return [{key: line[f"split_{key}"] for key in ("step_s", *SPLIT)} for line in lines]


def table(medians: Mapping[int, SplitSeconds], images: int) -> list[str]:
    """Lines of the table: pictures a second, efficiency against the first row, the split."""
    heads = "".join(f"{head:>13}" for head in HEADS)
    lines = [f"{'processes':>9}{'step s':>9}{'images/s':>10}{'efficiency':>12}{heads}"]
    first = None
    for processes, split in medians.items():
        speed = images * processes / split["step_s"]
        first = first or speed / processes
        parts = "".join(f"{split[key]:13.4f}" for key in SPLIT)
        lines.append(
            f"{processes:9}{split['step_s']:9.3f}{speed:10.2f}{speed / processes / first:12.2f}"
            f"{parts}"
        )
    return lines
