"""Shares of cores, against machines as they are built."""

import os
from pathlib import Path

import pytest

from megdet_hvd.cluster.bind import bind_process, read_numa
from megdet_hvd.cluster.cores import read_cpu_list, share_cores
from megdet_hvd.cluster.launch import Launch
from megdet_hvd.wording import number_ranges

TWO_SOCKETS = [list(range(32)), list(range(32, 64))]
THREADS = [[0, 8, 1, 9, 2, 10, 3, 11], [4, 12, 5, 13, 6, 14, 7, 15]]  # 8 cores of 2 threads
ODD = [[*range(0, 12)], [*range(12, 24)]]


def shares(numa: list[list[int]], local_size: int, cpus: int, allowed: str = "") -> list[str]:
    there = set(read_cpu_list(allowed)) if allowed else {core for node in numa for core in node}
    found = [share_cores(there, numa, rank, local_size, cpus) for rank in range(local_size)]
    return [number_ranges(share.cores, ",") for share in found]


@pytest.mark.parametrize(
    ("numa", "local_size", "cpus", "allowed", "cores"),
    [
        (TWO_SOCKETS, 4, 16, "", ["0-15", "16-31", "32-47", "48-63"]),
        (
            TWO_SOCKETS,
            8,
            4,
            "",
            ["0-3", "4-7", "8-11", "12-15", "32-35", "36-39", "40-43", "44-47"],
        ),
        (TWO_SOCKETS, 2, 8, "", ["0-7", "32-39"]),
        (TWO_SOCKETS, 3, 16, "", ["0-15", "16-31", "32-47"]),
        (THREADS, 4, 4, "", ["0-1,8-9", "2-3,10-11", "4-5,12-13", "6-7,14-15"]),
        (ODD, 3, 8, "", ["0-7", "8-15", "16-23"]),  # 3 × 8 fit only across the sockets
        (ODD, 2, 10, "", ["0-9", "12-21"]),
        ([], 2, 2, "0-3", ["0-1", "2-3"]),  # the system does not tell of NUMA nodes
        (TWO_SOCKETS, 2, 4, "28-35", ["28-31", "32-35"]),  # what the job may use of a machine
        (TWO_SOCKETS, 8, 16, "", [f"{8 * i}-{8 * i + 7}" for i in range(8)]),  # half of it is there
    ],
)
def test_shares(
    numa: list[list[int]], local_size: int, cpus: int, allowed: str, cores: list[str]
) -> None:
    assert shares(numa, local_size, cpus, allowed) == cores


@pytest.mark.parametrize(
    ("allowed", "cpus", "words"),
    [
        ("40-47", 8, "as the launcher left it"),
        ("0-1", 64, "as the launcher left it; 64 were asked for"),
        ("0-31", 8, "as the launcher bound it"),  # a socket, which three more tasks may share
        ("0-1", 1, "shared by 8 processes"),
    ],
)
def test_a_process_that_is_left_where_it_is(allowed: str, cpus: int, words: str) -> None:
    there = set(read_cpu_list(allowed))
    share = share_cores(there, [[0, 1]] if cpus == 1 else TWO_SOCKETS, 5, 8, cpus)
    assert not share.bind
    assert set(share.cores) == there
    assert words in share.reason


def test_numa_nodes_as_linux_tells_of_them(tmp_path: Path) -> None:
    for node, cores in ((0, "0-1,4-5\n"), (1, "2-3,6-7\n"), (10, "\n")):
        folder = tmp_path / "node" / f"node{node}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(cores)
    for core in range(8):
        folder = tmp_path / "cpu" / f"cpu{core}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{core % 4},{core % 4 + 4}\n")
    assert read_numa(tmp_path) == [[0, 4, 1, 5], [2, 6, 3, 7]]
    assert read_numa(tmp_path / "none") == []


def test_a_process_is_bound_only_where_the_driver_asks() -> None:
    before = os.sched_getaffinity(0)
    launch = Launch("mpi", "srun", 2, 1, 1, 2)
    try:
        assert bind_process(launch, {}) is None
        share = bind_process(launch, {"MEGDET_CPUS_PER_TASK": "1"})
        assert share is not None
        assert os.sched_getaffinity(0) == set(share.cores)
        assert len(share.cores) == 1 or len(before) == 1
    finally:
        os.sched_setaffinity(0, before)
