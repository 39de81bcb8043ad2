"""Called by several ranks: sums between GPUs are opened on all, or refused on all, and end well.

The GPUs are emulated (:mod:`tests.comm.peer.emulated`).
"""

import os
import struct
from contextlib import AbstractContextManager
from unittest import mock

import torch

from megdet_hvd.bn import carrier_of
from megdet_hvd.bn.carriers import PeerCarrier, SingleProcessCarrier
from megdet_hvd.comm import groups, position
from megdet_hvd.comm.peer import memory
from megdet_hvd.comm.peer.sums import PATIENCE_S, PeerSums
from megdet_hvd.engine.step.status import StatusMessage
from megdet_hvd.errors import RunError, UserError
from megdet_hvd.job import peer
from megdet_hvd.job.agree import is_agreed
from megdet_hvd.job.exchange import gather_objects
from megdet_hvd.job.horovod_settings import changed_environment
from megdet_hvd.job.session import start, stop
from megdet_hvd.job.watch.rank_state import OwnState
from megdet_hvd.job.world import World
from tests.comm.peer.emulated import emulated_access, open_emulated
from tests.cuda.emulation import emulated_driver

CUDA = torch.device("cuda", 0)


def refused(
    world: World, *told: str, device: torch.device = CUDA, loading: str | None = peer.EAGER
) -> None:
    """On this and all other ranks, with the same words."""
    try:
        with changed_environment({peer.MODULE_LOADING: loading}):
            peer.open_peer_sums(world, device, emulated_access)
    except UserError as error:
        text = str(error)
        assert is_agreed(error)
    else:
        raise AssertionError(f"went through: {told}")
    assert text.startswith("bn.carrier=peer can't serve: "), text
    assert text.endswith("; or set bn.carrier=horovod"), text
    assert all(word in text for word in told), text
    assert set(gather_objects(text, world, "text")) == {text}
    group = groups.bn_group_of_session()
    assert group is not None and group.peer is None
    assert position.device_place() is None


def failing(call: str, number: int, here: bool) -> AbstractContextManager[None]:
    return changed_environment({"EMULATED_CUDA_FAIL": f"{call}:{number}" if here else None})


def opened_or_refused() -> None:
    """Two ranks: each reason, then sums that are right."""
    world = start()
    one, lazily = world.rank == 1, "can't serve: CUDA loads kernels when they are first launched"
    refused(world, "can't serve: it adds up on GPUs, and", device=torch.device("cpu"))
    refused(world, lazily, "set CUDA_MODULE_LOADING=EAGER", loading=None)
    with changed_environment({peer.MAX_CONNECTIONS: "1" if one else "8"}):
        refused(world, "rank 1: CUDA_DEVICE_MAX_CONNECTIONS=1 puts", "unset it")
    with failing("cuIpcGetMemHandle", 801, True):
        refused(world, "can't serve: cuIpcGetMemHandle failed with CUDA_ERROR_NOT_SUPPORTED (801)")
    with failing("cuIpcOpenMemHandle_v2", 217, one):
        refused(world, "rank 1: cuIpcOpenMemHandle_v2 failed with CUDA_ERROR_PEER_ACCESS_UNSUPP")
    with failing("cuModuleLoadData", 200, one):
        refused(world, "rank 1: cuModuleLoadData failed with")
    vector = "megdet_hvd.comm.peer.self_test.known_vector"
    with mock.patch(vector, lambda *_: torch.full((3,), 1.0 + one, dtype=torch.float64)):
        refused(world, "can't serve: 3 of 3 values of test sum 0 are wrong")
    add_up = PeerSums.add_up
    with (
        mock.patch("megdet_hvd.job.peer.TEST_PATIENCE_S", 0.3),
        mock.patch.object(PeerSums, "add_up", (lambda *_: None) if one else add_up),
    ):
        refused(world, "rank 0: the sum self-test.0 was lost: the part of rank 1 did not come")
    group = groups.bn_group()
    try:
        carrier_of(group, "peer")
    except UserError as error:
        assert "open_peer_sums(world, device)" in str(error)
    else:
        raise AssertionError("a carrier that was not opened")
    open_emulated(world)
    carrier = carrier_of(groups.bn_group(), "peer")
    assert isinstance(carrier, PeerCarrier) and carrier.ranks == (0, 1)
    assert patience_s() == PATIENCE_S, "not that of the test"
    for number in range(3):
        vector_of = torch.tensor([0.1, 0.2 * (1 + world.rank), 1e20 * (-1) ** world.rank])
        total = carrier.sum(vector_of.double(), f"cgbn.it.forward.{number}")
        assert total[2] == 0 and total.tolist() == gather_objects(total.tolist(), world, "t")[0]
    try:
        carrier.sum(torch.ones(2), "cgbn.single")
    except UserError as error:
        assert "sums float64 on cpu, and cgbn.single is torch.float32 on cpu" in str(error)
    else:
        raise AssertionError("float32 was summed as if it were float64")
    stop()
    assert position.device_place() is None and groups.bn_group_of_session() is None


def patience_s() -> float:
    """How long the kernel of the session's group waits for a part."""
    group, driver = groups.bn_group(), emulated_driver()
    assert group is not None and group.peer is not None
    with driver.in_primary_context(0):
        _, _, _, patience = struct.unpack("<4Q", driver.copy_from_device(group.peer._group, 32))
    return float(patience / 1e9)


def machines_apart() -> None:
    """Three ranks: a group that spans machines is refused; one that is alone needs nothing."""
    world = start(machine_of_rank=[0, 0, 1], bn_groups=lambda machines: ((0, 1, 2),))
    refused(world, "the BN group (ranks 0-2) spans several machines", "bn.scope=machine")
    stop()
    world = start(machine_of_rank=[0, 0, 1])
    open_emulated(world)
    try:  # rank 2, which has nothing open, waits for nobody
        open_emulated(world)
    except UserError as error:
        assert is_agreed(error) and "ranks 0-1: this session's sums are open already" in str(error)
    else:
        raise AssertionError("opened twice")
    kind = SingleProcessCarrier if world.rank == 2 else PeerCarrier
    carrier = carrier_of(groups.bn_group(), "peer")
    assert type(carrier) is kind
    one = carrier.sum(torch.ones(1, dtype=torch.float64), "cgbn.it.forward.0")
    assert float(one) == carrier.size
    stop()


def a_lost_sum_ends_the_step() -> None:
    """Two ranks sum different things: the step ends with an error on both, before weights change.

    In a second session the same memory serves, and knows nothing of it.
    """
    for sound in (False, True):
        world = start()
        open_emulated(world)
        carrier = carrier_of(groups.bn_group(), "peer")
        for layer in (1, 2):
            odd = 3 - layer if world.rank == 1 and not sound else layer
            total = carrier.sum(torch.ones(4, dtype=torch.float64), f"cgbn.layer{odd}.forward.0")
        # Threads that had their parts of the first one keep them; the second is not tried.
        assert bool(total.isnan().all()) is not sound
        message = StatusMessage(world, torch.device("cpu"), ("loss",))
        message.add({"loss": torch.ones(2)}, None, 2, 0)  # as if nan had not come through
        message.send()
        try:
            status = message.read(5, "images 1, 2")
        except RunError as error:
            told = str(error)
            assert is_agreed(error) and not sound
            assert told.startswith("iteration 5: rank 0: the GPUs do not sum the same thing: ")
            assert "; rank 1: the GPUs do not sum the same thing: this one sums cgbn" in told
        else:
            assert sound and status.loss == 1.0
        stop()
    assert len(memory._kept[0, 2]) == 1, "the second session had that of the first"


def a_session_ends_under_a_sum() -> None:
    """Which nobody will ask for: the GPU is let go, and the other rank never comes to it."""
    world = start()
    open_emulated(world)
    group = groups.bn_group()
    assert group is not None and group.peer is not None
    sums, vector = group.peer, torch.ones(6, dtype=torch.float64)
    if world.rank == 0:
        with mock.patch("tests.comm.peer.emulated.OnTheSpot.waits", False):
            sums.add_up(vector, "cgbn.layer7.forward.0")
    stop()
    if world.rank == 0:
        assert "was given up while it waited for the part of rank 1" in str(sums.lost())
        assert vector.isnan().all()


def where_the_gpu_waits() -> None:
    """The watchdog's view: the sum that the GPU waits in, whatever the host does; and out of it."""
    world = start()
    with mock.patch("megdet_hvd.comm.peer.memory.NOTICE_S", 0.05):
        open_emulated(world)
    group = groups.bn_group()
    assert group is not None and group.peer is not None
    own, clock = OwnState(1.0), 0.0
    if world.rank == 0:
        position.compute(3, "forward")
        # Not on the spot: the host goes on while its GPU waits.
        vector = torch.ones(6, dtype=torch.float64)
        with mock.patch("tests.comm.peer.emulated.OnTheSpot.waits", False):
            group.peer.add_up(vector, "cgbn.layer7.forward.0")
        while (state := own.read(clock)).kind != "waiting":
            clock += 0.01
            os.sched_yield()
        assert (state.name, state.ranks) == ("cgbn.layer7.forward.0", (0, 1))
        assert (state.elements, state.step) == (6, 3)
        assert own.read(clock + 5).age_s >= 5, "it stands there as long as it is the same sum"
        position.give_up_device_sums([5])
        assert own.read(clock).kind == "waiting", "whoever fell is not needed there"
        position.give_up_device_sums([1])
        while own.read(clock).kind == "waiting":
            os.sched_yield()
        assert own.read(clock).name == "forward"
        assert "was given up while it waited for the part of rank 1" in str(group.peer.lost())
        position.go_outside("starting")
    gather_objects(None, world, "end")
    stop()
