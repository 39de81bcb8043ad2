"""One process of the bench of many ranks' start, started by ``bench start_ranks`` or a cluster.

What a training's processes do from their launch until all have met and are watched, without torch
and Horovod, so that a small machine holds 128 of them. On a cluster, for ``bench start_ranks
--read``: ``srun --mpi=pmix python -m megdet_hvd.bench.start_ranks_side --out FILE``.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from megdet_hvd.command import leave, need_environment

if __name__ == "__main__":
    need_environment()


def main(argv: Sequence[str] | None = None) -> int:
    """Meet, be watched, and tell rank 0 what that took; it writes all of it."""
    from megdet_hvd.bench.launch import measure_or_end_all

    parser = argparse.ArgumentParser()
    parser.add_argument("--per-machine", type=int, help="pretended; else as they stand")
    parser.add_argument("--out", type=Path, required=True)
    return measure_or_end_all(_measure, parser.parse_args(argv))


def _measure(options: argparse.Namespace) -> int:
    import json

    import psutil

    from megdet_hvd.cluster.launch import read_launch
    from megdet_hvd.cluster.mpi_start import meet_once
    from megdet_hvd.config.load import load_config
    from megdet_hvd.job import mpi_exchange
    from megdet_hvd.job.meeting import meeting_at_start
    from megdet_hvd.job.session import meet_all
    from megdet_hvd.job.watch import start_watchdog
    from megdet_hvd.job.watch.channel import LineSocket
    from megdet_hvd.job.world import World
    from megdet_hvd.preflight.compare import check_facts
    from megdet_hvd.preflight.facts import gather_facts

    launch = read_launch(os.environ)
    meet_once(launch, os.environ)
    config = load_config(None, ["device=cpu"])
    marks = {"imports": time.process_time()}

    from mpi4py import MPI

    world_size, rank = MPI.COMM_WORLD.Get_size(), MPI.COMM_WORLD.Get_rank()
    marks["mpi"] = time.process_time()
    told = _Counted(mpi_exchange, "dumps", lambda given, made: len(made))
    heard = _Counted(mpi_exchange, "loads", lambda given, made: len(given))
    lines = _Counted(LineSocket, "send", lambda given, made: 0)
    met = meet_all(
        launch,
        machine_of_rank=_pretended(world_size, options.per_machine),
        facts=lambda: gather_facts(config),
        check=check_facts,
    )
    marks["meeting"] = time.process_time()
    world = World(rank, world_size, met.machines, launcher=launch.launcher, hosts=met.hosts)
    with meeting_at_start(launch) as meeting:
        watchdog = start_watchdog(world, gather=partial(meeting.gather, name="watchdog"))
        marks["watchdog"] = time.process_time()
        there = time.time()
        memory = psutil.Process().memory_full_info()
        own: dict[str, Any] = {
            "created": psutil.Process().create_time(),
            "there": there,
            "machines": len(met.machines),
            "processor_s": marks,
            "told": [told.calls, told.bytes],
            "heard": [heard.calls, heard.bytes],
            "lines": lines.calls,
            "rss": memory.rss,
            "uss": memory.uss,
            "watched": watchdog.watches,
        }
        found = meeting.gather(own, "found")
    watchdog.stop()
    if rank == 0:
        options.out.write_text(json.dumps(found), encoding="utf-8")
    return 0


def _pretended(size: int, per_machine: int | None) -> list[int] | None:
    return None if per_machine is None else [rank // per_machine for rank in range(size)]


class _Counted:
    """A function of a module or class, whose calls and bytes are counted from now on."""

    def __init__(self, owner: Any, name: str, size: Callable[[Any, Any], int]) -> None:
        self.calls = self.bytes = 0
        original = getattr(owner, name)

        def counting(*arguments: Any) -> Any:
            made = original(*arguments)
            self.calls += 1
            self.bytes += size(arguments[0], made)
            return made

        setattr(owner, name, counting)


if __name__ == "__main__":
    leave(main)
