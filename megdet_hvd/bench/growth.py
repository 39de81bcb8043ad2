"""What grows with a run's length, its ranks and its pictures: processor time and memory.

``python -m megdet_hvd.bench growth [--lines 13500 270000] [--ranks 8 128] [--images 5000 40000]
[--json FILE]``: metrics of so many training lines are drawn once more after they were read once,
asked where the run stands, and cut as by a resume; rank 0 works out the split of a step's time over
so many ranks; and takes in 100 detections of each of so many pictures. On made-up input, each in a
process of its own.
"""

import argparse
import json
import subprocess
from collections.abc import Sequence

from megdet_hvd.bench.launch import launched
from megdet_hvd.bench.record import record_file, write_record
from megdet_hvd.cli import make_parser, parse
from megdet_hvd.errors import RunError

SIDE = "megdet_hvd.bench.growth_side"
PARTS = {
    "curves": ("lines", "curves drawn once more"),
    "standing": ("lines", "where the run stands"),
    "resume": ("lines", "the last 100 forgotten"),
    "split": ("ranks", "a step's time split"),
    "results": ("images", "detections taken in"),
}
"""Of each part: what it grows with, and its name in the table."""

Growth = dict[str, dict[int, dict[str, float]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    words = (__doc__ or "").split("\n")[0]
    parser = make_parser("megdet_hvd.bench growth", words, settings=False)
    add = parser.add_argument
    add("--lines", type=int, nargs="+", default=[13_500, 270_000], metavar="N")
    add("--ranks", type=int, nargs="+", default=[8, 128], metavar="N")
    add("--images", type=int, nargs="+", default=[5_000, 40_000], metavar="N")
    add("--json", type=record_file, metavar="FILE", help="write the record there, too")
    options = parse(parser, arguments)
    if min(*options.lines, *options.ranks, *options.images) < 2:
        parser.error("--lines, --ranks and --images are 2 or more")
    _measure(options)
    return 0


def _measure(options: argparse.Namespace) -> None:
    import torch

    from megdet_hvd.bench.machine import describe_machine

    machine = describe_machine(torch.device("cpu"))
    print(machine, flush=True)
    found: Growth = {
        part: {size: measure_part(part, size) for size in getattr(options, kind)}
        for part, (kind, _) in PARTS.items()
    }
    print("\n".join(table(found)))
    if options.json is not None:
        write_record(options.json, machine, {}, parts=found)


def measure_part(part: str, size: int) -> dict[str, float]:
    """Processor seconds and MB of one part, in a process of its own.

    Raises:
        RunError: it failed.
    """
    command = launched([SIDE, part, str(size)], 1)
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        raise RunError(f"{part} of {size} failed (exit code {done.returncode}): {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(found: Growth) -> list[str]:
    """A line for each part and size."""
    lines = [f"{'':<26}{'size':>16}{'processor s':>14}{'MB more':>10}"]
    for part, sizes in found.items():
        kind, name = PARTS[part]
        for size, one in sizes.items():
            lines.append(
                f"{name:<26}{f'{size:,} {kind}':>16}{one['processor_s']:14.3f}{one['mb']:10.0f}"
            )
    return lines
