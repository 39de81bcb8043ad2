"""Bind this process to its cores: the edge to the machine of :mod:`megdet_hvd.cluster.cores`."""

import os
from collections.abc import Mapping
from pathlib import Path

from megdet_hvd.cluster.cores import CoreShare, read_cpu_list, share_cores
from megdet_hvd.cluster.driver_variables import CPUS_PER_TASK
from megdet_hvd.cluster.launch import Launch

SYSTEM = Path("/sys/devices/system")


def read_numa(system: Path = SYSTEM) -> list[list[int]]:
    """Cores of each NUMA node, in physical order; empty where the system does not say."""
    nodes = []
    for folder in sorted(system.glob("node/node[0-9]*"), key=lambda path: int(path.name[4:])):
        try:
            cores = read_cpu_list((folder / "cpulist").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        if cores:
            nodes.append(sorted(cores, key=lambda core: (_first_thread(system, core), core)))
    return nodes


def _first_thread(system: Path, core: int) -> int:
    """The lowest number among the hardware threads of a physical core."""
    try:
        return read_cpu_list(
            (system / f"cpu/cpu{core}/topology/thread_siblings_list").read_text(encoding="utf-8")
        )[0]
    except (OSError, ValueError, IndexError):
        return core


def own_share(launch: Launch, environ: Mapping[str, str]) -> CoreShare | None:
    """The cores that this process should take; None: nobody asked for a number of them."""
    text = environ.get(CPUS_PER_TASK, "").strip()
    if not text.isdigit() or int(text) == 0 or launch.local_rank is None or not launch.local_size:
        return None
    return share_cores(
        os.sched_getaffinity(0), read_numa(), launch.local_rank, launch.local_size, int(text)
    )


def bind_process(launch: Launch, environ: Mapping[str, str]) -> CoreShare | None:
    """Bind it, before libraries start threads, which inherit the cores. Never fails.

    Returns what it was bound to, or should have been; None: nobody asked for it.
    """
    share = own_share(launch, environ)
    if share is None or not share.bind:
        return share
    try:
        os.sched_setaffinity(0, share.cores)
    except OSError as error:
        there = tuple(sorted(os.sched_getaffinity(0)))
        return CoreShare(there, False, f"binding failed: {error.strerror}")
    return share
