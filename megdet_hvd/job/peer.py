"""Opens the sums between the GPUs of each BN group: on all ranks of the job, or on none."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import torch

from megdet_hvd.comm import groups
from megdet_hvd.comm.peer.memory import GpuAccess, PeerMemory, gpu_access
from megdet_hvd.comm.peer.self_test import TEST_PATIENCE_S, self_test
from megdet_hvd.comm.peer.sums import PATIENCE_S, PeerSums
from megdet_hvd.cuda.error import CudaError
from megdet_hvd.errors import UserError, text_of
from megdet_hvd.grouping import keys_by_value
from megdet_hvd.job.agree import mark_agreed
from megdet_hvd.job.exchange import gather_objects
from megdet_hvd.job.world import World
from megdet_hvd.wording import ranks_in_words

MODULE_LOADING = "CUDA_MODULE_LOADING"
EAGER = "EAGER"
"""All kernels are loaded when CUDA starts. A kernel that is loaded at its first launch may wait for
all that its GPU has begun, a sum among them, whose other ranks wait for this one."""
MAX_CONNECTIONS = "CUDA_DEVICE_MAX_CONNECTIONS"
"""1: all streams of a GPU share one queue, where a sum holds up what others wait for."""


_LISTEN_S = 0.1


def open_peer_sums(
    world: World,
    device: torch.device,
    access: Callable[[torch.device], GpuAccess] = gpu_access,
) -> None:
    """Let the session's BN group sum by :mod:`megdet_hvd.comm.peer`. All ranks call it together.

    Some sums are tried out first, which ends whatever the GPUs do. ``access`` reaches the device's
    GPU.

    Raises:
        RuntimeError: :func:`megdet_hvd.job.session.start` was not called.
        UserError: on all ranks alike, where any of them can't; nothing more is left open.
    """
    group = groups.bn_group_of_session()
    if group is None:
        raise RuntimeError(
            "no session runs whose BN groups are known: call megdet_hvd.job.session.start() "
            "instead of hvd.init(), then open_peer_sums()"
        )
    if len(group.ranks) == 1:  # nothing to open, but the others' reasons are this rank's, too
        for name in ("offer", "connect", "test"):
            _together(lambda: b"", world, name)
        return
    opening = _Opening(world, group, device)
    try:
        handles = _together(lambda: opening.offer(access), world, "offer")
        _together(lambda: opening.connect(handles), world, "connect")
        _together(opening.test, world, "test")
    except UserError:
        opening.close()
        raise
    opening.attach()


class _Refused(RuntimeError):
    """The text says why this rank can't."""


class _Opening:
    """How far one rank is. Each step is taken once all ranks have taken the one before."""

    def __init__(self, world: World, group: groups.BnGroup, device: torch.device) -> None:
        self._world, self._group, self._device = world, group, device
        self._own = group.ranks.index(world.rank)
        self._gpu: GpuAccess | None = None
        self._memory: PeerMemory | None = None
        self._sums: PeerSums | None = None

    def offer(self, access: Callable[[torch.device], GpuAccess]) -> bytes:
        """The handle of this rank's inbox."""
        if self._group.peer is not None:
            raise _Refused("this session's sums are open already, and are opened once")
        problem = refusal(self._world, self._group.ranks, self._device, os.environ)
        if problem is not None:
            raise _Refused(problem)
        self._gpu = gpu = access(self._device)
        with gpu.driver.in_primary_context(gpu.number):
            if not gpu.driver.loads_eagerly():
                raise _Refused(
                    "CUDA loads kernels when they are first launched, which may wait for a sum "
                    f"that waits for this rank; set {MODULE_LOADING}={EAGER} before CUDA starts "
                    "(a program that trains by itself sees to it, unless the environment says "
                    "otherwise)"
                )
        self._memory = PeerMemory(gpu, len(self._group.ranks))
        return self._memory.handle

    def connect(self, handles: Sequence[bytes]) -> bytes:
        """``handles`` of all ranks of the job."""
        assert self._memory is not None, "offer() comes first"
        self._memory.connect(self._own, [handles[rank] for rank in self._group.ranks])
        self._sums = self._memory.sums(self._group.ranks, self._own)
        self._memory.set_patience(self._own, TEST_PATIENCE_S)
        return b""

    def test(self) -> bytes:
        """Sums that are known; their patience is short, that of others is not."""
        assert self._memory is not None, "connect() comes first"
        assert self._gpu is not None and self._sums is not None, "the same"
        problem = self_test(self._sums, self._gpu, self._own)
        if problem is not None:
            raise _Refused(problem)
        self._memory.set_patience(self._own, PATIENCE_S)
        return b""

    def close(self) -> None:
        """Give back what there is."""
        if self._sums is not None:
            self._sums.give_up()
        if self._memory is not None:
            with suppress(CudaError):  # the GPU may be what is wrong
                self._memory.close()

    def attach(self) -> None:
        """The session's group has the sums from here on."""
        assert self._memory is not None, "connect() comes first"
        assert self._sums is not None, "the same"
        memory, interrupted = self._memory, self._group.interrupted
        listener = None if interrupted is None else _Listener(interrupted, self._sums)

        def close() -> None:
            if listener is not None:
                listener.stop()
            memory.close()

        groups.attach(self._sums, close)


def _together(step: Callable[[], bytes], world: World, name: str) -> list[bytes]:
    """Take a step on all ranks; what it returned on each.

    Raises:
        UserError: on all ranks alike, with the reasons of those that could not.
    """
    own: tuple[str | None, bytes] = (None, b"")
    try:
        own = (None, step())
    except RuntimeError as error:  # CUDA's, torch's or ours: of one rank, and a reason for all
        own = (text_of(error), b"")
    found: list[tuple[str | None, bytes]] = gather_objects(own, world, f"peer.{name}")
    problems = {rank: text for rank, (text, _) in enumerate(found) if text is not None}
    if problems:
        told = [
            text if len(ranks) == len(found) else f"{ranks_in_words(ranks)}: {text}"
            for text, ranks in keys_by_value(problems).items()
        ]
        raise mark_agreed(
            UserError(f"bn.carrier=peer can't serve: {'; '.join(told)}; or set bn.carrier=horovod")
        )
    return [value for _, value in found]


class _Listener:
    """Frees the GPU once another member has failed: the host may wait for the GPU meanwhile."""

    def __init__(self, interrupted: Callable[[], bool], sums: PeerSums) -> None:
        self._interrupted, self._sums = interrupted, sums
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="peer sums", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._over.wait(_LISTEN_S):
            if self._interrupted():
                self._sums.give_up()
                return

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def refusal(
    world: World, ranks: tuple[int, ...], device: torch.device, environ: Mapping[str, str]
) -> str | None:
    """Why a group of ``ranks`` can't sum between GPUs, before any is asked; None: it may."""
    if device.type != "cuda":
        return f"it adds up on GPUs, and this run computes on {device.type}"
    if not set(ranks) <= set(world.local_ranks):
        return (
            f"the BN group ({ranks_in_words(ranks)}) spans several machines, and a GPU reaches "
            "those of its own only (bn.scope=machine)"
        )
    if environ.get(MAX_CONNECTIONS) == "1":
        return (
            f"{MAX_CONNECTIONS}=1 puts all of a GPU's work into one queue, where a sum would hold "
            "up what the others wait for; unset it"
        )
    return None
