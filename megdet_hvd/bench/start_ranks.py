"""What the start of many ranks costs besides torch, Horovod and the network: time, memory, words.

``python -m megdet_hvd.bench start_ranks [--ranks 2 8 32 128] [--turns 1] [--json FILE]``: processes
without torch go through a training's start: MPI, the meeting at which all tell one another of their
code, settings, versions and cores, and the watchdog's connections. They stand on pretended machines
of 8. More of them than cores take turns, so that the clock says little; processor time, memory and
what is sent are each process's own. ``--read FILE …`` prints the table of what
``bench.start_ranks_side`` wrote under a cluster's own launcher.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megdet_hvd.bench.record import record_file, write_record
from megdet_hvd.cli import make_parser, parse
from megdet_hvd.errors import UserError

SIDE = "megdet_hvd.bench.start_ranks_side"
PHASES = ("imports", "mpi", "meeting", "watchdog")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    words = (__doc__ or "").split("\n")[0]
    parser = make_parser("megdet_hvd.bench start_ranks", words, settings=False)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 8, 32, 128], metavar="N")
    parser.add_argument("--per-machine", type=int, default=8, metavar="N")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument(
        "--json", type=record_file, metavar="FILE", help="write the record there, too"
    )
    parser.add_argument(
        "--read", type=Path, nargs="+", metavar="FILE", help="of start_ranks_side: start nothing"
    )
    options = parse(parser, arguments)
    if options.read:
        print("\n".join(table(read_starts(options.read))))
        return 0
    if min(options.ranks) < 2 or min(options.per_machine, options.turns) < 1:
        parser.error("--ranks are 2 or more, --per-machine and --turns 1 or more")
    _measure(options)
    return 0


def _measure(options: argparse.Namespace) -> None:
    import torch

    from megdet_hvd.bench.launch import run_in_ranks
    from megdet_hvd.bench.machine import describe_machine

    machine = describe_machine(torch.device("cpu"))
    print(f"{machine}; {options.turns} turns", flush=True)
    found: dict[int, list[dict[str, Any]]] = {}
    for _ in range(options.turns):
        for ranks in options.ranks:
            began = time.time()
            records = run_in_ranks(SIDE, ranks, ["--per-machine", str(options.per_machine)])
            found.setdefault(ranks, []).append(summed_up(records, began))
    print("\n".join(table(found)))
    if options.json is not None:
        settings = {"turns": options.turns, "per_machine": options.per_machine}
        write_record(options.json, machine, settings, starts=found)


def read_starts(files: Sequence[Path]) -> dict[int, list[dict[str, Any]]]:
    """Starts by number of ranks, from files of ``start_ranks_side``; timed from the first process.

    Raises:
        UserError: a file can't be read, or is none of these.
    """
    starts: dict[int, list[dict[str, Any]]] = {}
    for file in files:
        try:
            records = json.loads(file.read_text(encoding="utf-8"))
            began = min(record["created"] for record in records)
            starts.setdefault(len(records), []).append(summed_up(records, began))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"--read {file}: must be what bench.start_ranks_side has written with --out "
                f"({type(error).__name__}: {error})"
            ) from error
    return dict(sorted(starts.items()))


def summed_up(records: Sequence[dict[str, Any]], began: float) -> dict[str, Any]:
    """One start: of each figure rank 0's and the median of the others.

    Args:
        records: what each rank told.
        began: when they were launched, by the clock that ``there`` of the records is of.
    """

    def both(figures: Sequence[float]) -> dict[str, float]:
        return {"rank_0": figures[0], "others": statistics.median(figures[1:])}

    spent: dict[str, list[float]] = {phase: [] for phase in PHASES}
    for record in records:
        before = 0.0
        for phase in PHASES:
            spent[phase].append(record["processor_s"][phase] - before)
            before = record["processor_s"][phase]
    return {
        "clock_s": max(record["there"] for record in records) - began,
        "processor_s": {phase: both(figures) for phase, figures in spent.items()},
        "uss_bytes": both([record["uss"] for record in records]),
        "told_bytes": both([record["told"][1] for record in records]),
        "heard_bytes": both([record["heard"][1] for record in records]),
        "watchdog_lines": both([record["lines"] for record in records]),
        "watched": all(record["watched"] for record in records),
    }


def table(found: dict[int, list[dict[str, Any]]]) -> list[str]:
    """A line for each number of ranks: rank 0's figure, and the median of the others'."""
    columns = (
        ("meeting ms", ("processor_s", "meeting"), 1e3),
        ("watchdog ms", ("processor_s", "watchdog"), 1e3),
        ("own MB", ("uss_bytes",), 1e-6),
        ("told KB", ("told_bytes",), 1e-3),
        ("heard KB", ("heard_bytes",), 1e-3),
        ("lines", ("watchdog_lines",), 1),
    )
    lines = ["ranks  clock s" + "".join(f"{head:>18}" for head, *_ in columns)]
    for ranks, starts in found.items():
        clock = statistics.median(start["clock_s"] for start in starts)
        line = f"{ranks:>5}{clock:9.1f}"
        for _, path, factor in columns:
            pair = []
            for who in ("rank_0", "others"):
                values = []
                for start in starts:
                    value: Any = start
                    for key in path:
                        value = value[key]
                    values.append(value[who] * factor)
                pair.append(statistics.median(values))
            line += f"{pair[0]:9.1f} :{pair[1]:7.1f}"
        lines.append(line)
    return lines
