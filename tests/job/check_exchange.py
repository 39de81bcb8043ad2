"""What the ranks of a job send one another, and how much of it."""

import os
from typing import Any
from unittest import mock

import horovod.torch as hvd

from megdet_hvd.cluster.launch import read_launch
from megdet_hvd.comm.mpi_wait import Interrupted
from megdet_hvd.errors import UserError
from megdet_hvd.job import agree as agreeing
from megdet_hvd.job.agree import agree, together
from megdet_hvd.job.exchange import (
    any_rank,
    barrier,
    broadcast_object,
    gather_objects,
    gather_on_main,
)
from megdet_hvd.job.meeting import meeting_at_start
from megdet_hvd.job.session import start, stop
from megdet_hvd.serialize import loads


def exchanged() -> dict[str, Any]:
    """Values that travel to all and to rank 0, by length, and how many each rank reads."""
    world = start()
    values = ["x" * (1000 * world.rank), ["", {"rank": world.rank}]]
    with mock.patch("megdet_hvd.job.exchange.loads", wraps=loads) as reads:
        on_main = [gather_on_main(value, world, "test") for value in values]
        read_on_main = reads.call_count
        everywhere = [gather_objects(value, world, "test") for value in values]
        read_everywhere = reads.call_count - read_on_main
    with (
        mock.patch("megdet_hvd.job.exchange.LARGEST_MESSAGE", 300),
        mock.patch("horovod.torch.broadcast_", wraps=hvd.broadcast_) as messages,
    ):
        large = broadcast_object("y" * 1000 if world.is_main else None, world, "large")
    pieces = [call.args[0].numel() for call in messages.call_args_list]
    said = [any_rank(world.rank == one, world, "test") for one in (*range(world.size), -1)]
    with mock.patch.object(agreeing, "gather_objects", wraps=gather_objects) as gathered:
        for _ in range(3):
            with together(world, "well"):
                pass
            barrier(world, "here")
        quiet = gathered.call_count
        try:
            agree(UserError("bad") if world.rank == 1 else None, world, "ill")
        except UserError as error:
            text = str(error)
    stop()
    return {
        "on_main": on_main,
        "everywhere": everywhere,
        "reads": [read_on_main, read_everywhere],
        "large": large,
        "pieces": pieces,
        "said": said,
        "gathers": [quiet, gathered.call_count],
        "text": text,
    }


def decided() -> dict[str, Any]:
    """What rank 0 makes of the values of all, and how many values each rank reads for it."""
    launch = read_launch(os.environ)
    with (
        mock.patch("megdet_hvd.job.mpi_exchange.loads", wraps=loads) as over_mpi,
        mock.patch("megdet_hvd.job.rendezvous.loads", wraps=loads) as over_store,
        meeting_at_start(launch) as meeting,
    ):
        everyone = meeting.decide(meeting.rank, "all", list[Any])
        reads = over_mpi.call_count + over_store.call_count
        try:
            meeting.decide(0, "there" if meeting.rank == 2 else "here", len)
        except Interrupted as error:
            text = str(error)
    return {"everyone": everyone, "reads": reads, "text": text}
