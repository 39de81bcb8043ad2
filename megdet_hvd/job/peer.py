"""Opens the sums between the GPUs of each BN group: on all ranks of the job, or on none."""

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import torch

from megdet_hvd.comm import groups
from megdet_hvd.comm.peer.memory import GpuAccess, PeerMemory, gpu_access
from megdet_hvd.comm.peer.self_test import TEST_PATIENCE_S, self_test
from megdet_hvd.comm.peer.sums import PATIENCE_S, PeerSums
from megdet_hvd.cuda.error import CudaError, NoCudaLibrary
from megdet_hvd.errors import UserError
from megdet_hvd.grouping import keys_by_value
from megdet_hvd.job.agree import mark_agreed
from megdet_hvd.job.exchange import gather_objects
from megdet_hvd.job.world import World
from megdet_hvd.serialize import serializable
from megdet_hvd.wording import ranks_in_words

MODULE_LOADING = "CUDA_MODULE_LOADING"
EAGER = "EAGER"
"""All kernels are loaded when CUDA starts. A kernel that is loaded at its first launch may wait for
all that its GPU has begun, a sum among them, whose other ranks wait for this one."""
MAX_CONNECTIONS = "CUDA_DEVICE_MAX_CONNECTIONS"
"""1: all streams of a GPU share one queue, where a sum holds up what others wait for."""


_LISTEN_S = 0.1


@serializable
@dataclass(frozen=True)
class _Offer:
    """What a rank tells the others before any memory is opened."""

    problem: str | None
    handle: bytes
    """Of its inbox; empty where its group is one rank, or it has a problem."""


def open_peer_sums(
    world: World,
    device: torch.device,
    access: Callable[[torch.device], GpuAccess] = gpu_access,
) -> None:
    """Let the session's BN group sum by :mod:`megdet_hvd.comm.peer`. All ranks call it together.

    Some sums are tried out first, which ends whatever the GPUs do. ``access`` reaches the device's
    GPU.

    Raises:
        UserError: on all ranks alike, where any of them can't; nothing is left open.
    """
    group = groups.bn_group_of_session()
    assert group is not None, "a session of ours runs"
    own = group.ranks.index(world.rank)
    memory: PeerMemory | None = None
    sums: PeerSums | None = None
    offer = _Offer(None, b"")
    gpu: GpuAccess | None = None
    if len(group.ranks) > 1:
        problem = refusal(world, group.ranks, device, os.environ)
        try:
            if problem is None:
                gpu = access(device)
                problem = _loading_problem(gpu)
            if problem is None and gpu is not None:
                memory = PeerMemory(gpu, len(group.ranks))
        except (CudaError, NoCudaLibrary) as error:
            problem = str(error)
        offer = _Offer(problem, b"" if memory is None else memory.handle)
    offers: list[_Offer] = gather_objects(offer, world, "peer.offers")
    try:
        _raise_together([one.problem for one in offers])
        problem = None
        if memory is not None and gpu is not None:
            try:
                memory.connect(own, [offers[rank].handle for rank in group.ranks])
                sums = memory.sums(group.ranks, own)
                memory.set_patience(own, TEST_PATIENCE_S)
            except (CudaError, NoCudaLibrary) as error:
                problem = str(error)
        _raise_together(gather_objects(problem, world, "peer.open"))
        if sums is not None and memory is not None and gpu is not None:
            try:
                problem = self_test(sums, gpu, own)
                if problem is None:
                    memory.set_patience(own, PATIENCE_S)
            except CudaError as error:
                problem = str(error)
        _raise_together(gather_objects(problem, world, "peer.tested"))
    except UserError:
        if sums is not None:
            sums.give_up()
        if memory is not None:
            with suppress(CudaError):  # the GPU may be what is wrong
                memory.close()
        raise
    if sums is not None and memory is not None:
        listener = None if group.interrupted is None else _Listener(group.interrupted, sums)

        def close(own: PeerMemory = memory) -> None:
            if listener is not None:
                listener.stop()
            own.close()

        groups.attach(sums, close)


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


def _loading_problem(gpu: GpuAccess) -> str | None:
    with gpu.driver.in_primary_context(gpu.number):
        eager = gpu.driver.loads_eagerly()
    if eager:
        return None
    return (
        "CUDA loads kernels when they are first launched, which may wait for a sum that waits for "
        f"this rank; set {MODULE_LOADING}={EAGER} before CUDA starts (a program that trains by "
        "itself sees to it, unless the environment says otherwise)"
    )


def _raise_together(problems: list[str | None]) -> None:
    found = {rank: text for rank, text in enumerate(problems) if text is not None}
    if not found:
        return
    told = [
        text if len(ranks) == len(problems) else f"{ranks_in_words(ranks)}: {text}"
        for text, ranks in keys_by_value(found).items()
    ]
    raise mark_agreed(
        UserError(f"bn.carrier=peer can't serve: {'; '.join(told)}; or set bn.carrier=horovod")
    )
