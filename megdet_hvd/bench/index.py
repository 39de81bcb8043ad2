"""Opening an annotation file as large as COCO's: ours, kept and not yet kept, and pycocotools.

``python -m megdet_hvd.bench index [--images 118287] [--boxes 860000] [--turns 3] [--processes 8]
[--json FILE]``: a made-up file with outlines (370 MB) in a temporary folder (TMPDIR), each side in
a fresh process each time, then in several at once. Private memory is that of the process alone
(USS), after opening, and "when used" after going through all boxes, less what it had before; a
single process has the pages of a mapped file for its own, several share them. All must have read
the same boxes. Ours asks for each picture's file besides; pycocotools doesn't.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megdet_hvd.bench.record import record_file, write_record
from megdet_hvd.bench.turns import SideTimes, turns_table
from megdet_hvd.cli import make_parser, parse
from megdet_hvd.errors import RunError

WARM, COLD, PEER = "ours, kept", "ours, the first time", "pycocotools"
SIDES = (WARM, COLD, PEER)
_ROOM = 1.2
"""Of the peak of one process, what each of several is given."""


@dataclass(frozen=True)
class Opening:
    """What one process took to open the file."""

    clock_s: float
    processor_s: float
    peak_mib: float
    private_mib: float
    """After opening, more than before."""
    private_used_mib: float
    """After going through all boxes."""
    content: str
    """Digest of what it read."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the tables."""
    parser = make_parser("megdet_hvd.bench index", (__doc__ or "").split("\n")[0], settings=False)
    parser.add_argument("--images", type=int, default=118_287, help="pictures")
    parser.add_argument("--boxes", type=int, default=860_000, help="in all of them")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--processes", type=int, default=8, help="at once; 1: leave this out")
    parser.add_argument(
        "--json", type=record_file, metavar="FILE", help="write the record there, too"
    )
    options = parse(parser, arguments)
    for name in ("images", "boxes", "turns", "processes"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: must be at least 1")
    with tempfile.TemporaryDirectory(prefix="megdet-index-") as folder:
        _measure(options, Path(folder))
    return 0


def _measure(options: argparse.Namespace, folder: Path) -> None:
    import psutil
    import torch

    from megdet_hvd.bench.index_set import make_set
    from megdet_hvd.bench.machine import describe_machine
    from megdet_hvd.data import stamps

    machine = describe_machine(torch.device("cpu"))
    source = make_set(folder, options.images, options.boxes)
    size = source.annotations.stat().st_size
    print(
        f"{machine}; {options.images} pictures, {options.boxes} boxes, {size / 1e6:.0f} MB; "
        f"{options.turns} turns",
        flush=True,
    )
    time.sleep(max(0.0, stamps.SETTLED_S + 1))  # files that users have lie there for longer
    found: dict[str, list[Opening]] = {side: [] for side in SIDES}
    for turn in range(options.turns + 1):  # the first doesn't count, and makes what is kept
        for side in SIDES:
            (one,) = open_at_once(side, 1, folder)
            if turn:
                found[side].append(one)
    _require_equal(found)
    times = [
        SideTimes(side, tuple(one.clock_s for one in some), tuple(one.processor_s for one in some))
        for side, some in found.items()
    ]
    print("\n".join([*turns_table(times), "", *memory_table(found)]), flush=True)
    together: dict[str, Any] = {}
    if options.processes > 1:
        print(f"\n{options.processes} processes at once")
        for side in SIDES:
            peak = max(one.peak_mib for one in found[side]) if side != WARM else 0.0
            needed, free = options.processes * peak * _ROOM, psutil.virtual_memory().available
            if side == PEER and needed > free / 2**20:
                print(f"{side}: left out; it may take {needed:.0f} MiB of {free / 2**20:.0f} free")
                continue
            some = open_at_once(side, options.processes, folder)
            _require_equal({WARM: found[WARM], side: some})
            together[side] = [vars(one) for one in some]
            print(at_once_line(side, some), flush=True)
    if options.json is not None:
        settings = {
            name: getattr(options, name) for name in ("images", "boxes", "turns", "processes")
        }
        single = {side: [vars(one) for one in some] for side, some in found.items()}
        write_record(
            options.json, machine, settings, bytes=size, sides=times, single=single,
            together=together,
        )  # fmt: skip


def open_at_once(side: str, processes: int, folder: Path) -> list[Opening]:
    """What each of several processes took; where it is the first time, the first goes ahead.

    The others of that side wait for it, as the ranks of a machine do, and their clock runs.

    Raises:
        RunError: one of them failed; its error stands above.
    """
    with ExitStack() as stack:
        cache = str(folder / "cache")
        if side == COLD:
            cache = stack.enter_context(tempfile.TemporaryDirectory(dir=folder))
        kind = PEER if side == PEER else "ours"
        command = [sys.executable, "-m", "megdet_hvd.bench.index_side", kind, str(folder), cache]
        running = [
            stack.enter_context(
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    encoding="utf-8",
                )
            )
            for _ in range(processes)
        ]
        try:
            for one in running:
                _hear(one)
            began = time.perf_counter()
            opened: list[dict[str, Any]] = []
            first = running[:1] if side == COLD else []
            for group in (first, running[len(first) :]):
                waited = time.perf_counter() - began
                for one in group:
                    _go(one)
                answers = [_hear(one) for one in group]
                opened += [{**it, "clock_s": it["clock_s"] + waited} for it in answers]
            for _ in range(3):  # each when all are as far
                for one in running:
                    _go(one)
                answers = [_hear(one) for one in running]
                opened = [{**it, **more} for it, more in zip(opened, answers, strict=True)]
        except BaseException:
            for one in running:
                one.kill()
            raise
    return [Opening(**it) for it in opened]


def memory_table(found: dict[str, list[Opening]]) -> list[str]:
    """Lines of a table: medians, MiB."""
    width = max(map(len, found)) + 2
    lines = [" " * width + f"{'peak MiB':>10}{'private MiB':>14}{'when used':>12}"]
    for side, some in found.items():
        peak = statistics.median(one.peak_mib for one in some)
        private = statistics.median(one.private_mib for one in some)
        used = statistics.median(one.private_used_mib for one in some)
        lines.append(f"{side:<{width}}{peak:10.0f}{private:14.1f}{used:12.1f}")
    return lines


def at_once_line(side: str, some: Sequence[Opening]) -> str:
    """What several processes took together."""
    return (
        f"{side}: all have it after {max(one.clock_s for one in some):.3f} s, "
        f"{sum(one.processor_s for one in some):.3f} s of processors; private "
        f"{max(one.private_mib for one in some):.1f} MiB at most, when used "
        f"{max(one.private_used_mib for one in some):.1f}, in all "
        f"{sum(one.private_used_mib for one in some):.1f}; highest peak "
        f"{max(one.peak_mib for one in some):.0f} MiB"
    )


def _require_equal(found: dict[str, list[Opening]]) -> None:
    contents = {side: {one.content for one in some} for side, some in found.items()}
    if len(set().union(*contents.values())) != 1:
        raise RunError(f"the sides have read other boxes: {contents}")


def _go(one: "subprocess.Popen[str]") -> None:
    assert one.stdin is not None
    one.stdin.write("\n")
    one.stdin.flush()


def _hear(one: "subprocess.Popen[str]") -> dict[str, Any]:
    assert one.stdout is not None
    line = one.stdout.readline()
    if not line:
        raise RunError(f"a process that opens the file failed (exit code {one.wait()})")
    found: dict[str, Any] = json.loads(line)
    return found
