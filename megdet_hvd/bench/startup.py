"""From the launch to the end of the first step's forward pass, beside a bare script.

``python -m megdet_hvd.bench startup [--processes 1 8] [--turns 5] [--json FILE]``: the training
command on the embedded scenes, against a script that imports torch, torchvision and Horovod, calls
``hvd.init()`` and sums one number; under the same launcher, sides in turn. The slowest rank counts.
Scenes are there beforehand, files have been read once, and modules of both sides are compiled, as
those of an installed package are.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from megdet_hvd.bench.launch import last_words, run_into_file
from megdet_hvd.bench.record import record_file, write_record
from megdet_hvd.cli import make_parser, parse
from megdet_hvd.errors import RunError

if TYPE_CHECKING:
    from megdet_hvd.bench.turns import SideTimes

SIDES = ("ours", "bare script")
RANKS = "megdet_hvd.bench.startup_ranks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the tables."""
    parser = make_parser("megdet_hvd.bench startup", (__doc__ or "").split("\n")[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 8], metavar="N")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument(
        "--json", type=record_file, metavar="FILE", help="write the record there, too"
    )
    options = parse(parser, arguments)
    if min(*options.processes, options.turns) < 1:
        parser.error("--processes and --turns are 1 or more")
    _measure(options)
    return 0


def _measure(options: argparse.Namespace) -> None:
    import torch

    from megdet_hvd.bench.machine import describe_machine
    from megdet_hvd.bench.turns import turns_table

    machine = describe_machine(torch.device("cpu"))
    print(f"{machine}; {options.turns} turns", flush=True)
    found = {}
    with tempfile.TemporaryDirectory() as compiled:
        for processes in options.processes:
            found[processes] = sides = _sides(processes, options, Path(compiled))
            print(f"{processes} processes")
            print("\n".join(turns_table(sides)))
            ratio = sides[0].clock / sides[1].clock
            print(f"ours takes {ratio:.2f} times as long (clock)", flush=True)
    if options.json is not None:
        write_record(options.json, machine, {"turns": options.turns}, sides=found)


def _sides(processes: int, options: argparse.Namespace, compiled: Path) -> "list[SideTimes]":
    from megdet_hvd.bench.turns import SideTimes

    taken: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    for turn in range(options.turns + 1):
        for side in SIDES:
            seconds = start_once(side, processes, options.overrides, compiled)
            if turn:
                taken[side].append(seconds)
    return [SideTimes(name, *zip(*pairs, strict=True)) for name, pairs in taken.items()]


def start_once(
    side: str, processes: int, overrides: Sequence[str], compiled: Path
) -> tuple[float, float]:
    """Clock and processor seconds from the launch until the slowest rank is there.

    ``compiled``: folder for compiled modules, filled by the first start of each side.

    Raises:
        RunError: the launch failed.
    """
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "output"
        words = ["--marks", place, side.split()[0], *overrides]
        began = time.time()
        keep = {"PYTHONPYCACHEPREFIX": str(compiled), "PYTHONDONTWRITEBYTECODE": ""}
        code = run_into_file([RANKS, *words], processes, output, keep)
        marks = [
            [float(word) for word in file.read_text(encoding="utf-8").split()]
            for file in Path(place).glob("rank-*")
        ]
        if len(marks) != processes:
            raise RunError(
                f"{side}: {len(marks)} of {processes} ranks came (code {code}); "
                f"the last words: {last_words(output)}"
            )
    return max(at for at, _ in marks) - began, sum(processor for _, processor in marks)
