"""``python -m megdet_hvd.placement``: where each task of a job stands, by its environment alone.

One line a task, such as ``rank 13 of 128 on n2: local rank 5 of 8, node 2 of 16 (cross rank 1 of
16), GPU 5, cores 40-47, started by srun``. Neither torch nor MPI starts, so that a launch of any
size can be tried out in a second; training goes by the same code.
"""

import argparse
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from megdet_hvd.cluster.bind import own_share
from megdet_hvd.cluster.cores import CoreShare
from megdet_hvd.cluster.gpus import choose_gpu
from megdet_hvd.cluster.launch import read_launch
from megdet_hvd.cluster.network_card import card_of
from megdet_hvd.command import leave, name_of
from megdet_hvd.errors import USER_ERROR, UserError
from megdet_hvd.job import outcome_notes
from megdet_hvd.version import add_version_option
from megdet_hvd.wording import number_ranges


@dataclass(frozen=True)
class Placement:
    """Where a task stands; None: its launcher does not say."""

    rank: int | None
    size: int | None
    host: str
    local_rank: int | None
    local_size: int | None
    node: int | None
    """Position of its machine, from 0."""
    nodes: int | None
    cross_rank: int | None
    cross_size: int | None
    gpu: str
    """Its entry in the list of GPUs; empty: none is named."""
    gpu_reason: str
    cores: str
    """As Linux lists them: 40-47."""
    cores_reason: str
    launcher: str
    network_card: str = ""
    """The one that the site names for it; empty: none."""

    def line(self) -> str:
        """In words."""
        node = "node unknown" if self.node is None else f"node {self.node + 1} of {self.nodes}"
        cross = "unknown"
        if self.cross_rank is not None:
            cross = f"{self.cross_rank} of {self.cross_size}"
        gpu = f"GPU {self.gpu}" if self.gpu else f"no GPU ({self.gpu_reason})"
        cores = f"cores {self.cores}"
        if self.cores_reason:
            cores += f" ({self.cores_reason})"
        if self.network_card:
            cores += f", network card {self.network_card}"
        return (
            f"rank {_known(self.rank)} of {_known(self.size)} on {self.host}: "
            f"local rank {_known(self.local_rank)} of {_known(self.local_size)}, {node} "
            f"(cross rank {cross}), {gpu}, {cores}, started by {self.launcher}"
        )


def _known(number: int | None) -> str:
    return "unknown" if number is None else str(number)


def find_placement(environ: Mapping[str, str], host: str) -> Placement:
    """Where this process stands.

    Raises:
        UserError: its launcher's variables make no job, or there are too few GPUs.
    """
    launch = read_launch(environ)
    gpu = choose_gpu(environ, launch.local_rank or 0, launch.local_size or 1, None)
    share = own_share(launch, environ) or CoreShare(tuple(os.sched_getaffinity(0)), False, "")
    reason = "" if share.bind and "asked for" not in share.reason else share.reason
    return Placement(
        launch.rank,
        launch.size,
        host,
        launch.local_rank,
        launch.local_size,
        launch.node,
        launch.nodes,
        launch.cross_rank,
        launch.cross_size,
        gpu.name,
        gpu.reason,
        number_ranges(share.cores, ","),
        reason,
        launch.launcher,
        card_of(launch, environ) or "",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print where this process stands; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=name_of("megdet_hvd.placement"),
        description="Say where each task of a job stands: rank, node, GPU, cores. Start it as "
        "training is started: srun --mpi=pmix python -m megdet_hvd.placement",
    )
    add_version_option(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    as_json = parser.parse_args(argv).json
    host = socket.gethostname()
    try:
        placement = find_placement(os.environ, host)
    except UserError as error:
        print(f"error: {host}: {error}", file=sys.stderr, flush=True)
        outcome_notes.tell(USER_ERROR, f"{host}: {error}")
        return USER_ERROR
    if as_json:
        import json

        text = json.dumps(asdict(placement))
    else:
        text = placement.line()
    sys.stdout.write(f"{text}\n")  # in one write, since many tasks share the stream
    return 0


if __name__ == "__main__":
    leave(main)
