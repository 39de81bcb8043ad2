"""A training process's device, threads and kernels."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from megdet_hvd.cluster.threads import threads_per_process
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError
from megdet_hvd.job.world import World
from megdet_hvd.model.device import pick_device

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Without it cuBLAS is not repeatable."""


@contextmanager
def borrowed_torch() -> Iterator[None]:
    """Afterwards torch's threads, kernels, device, streams and generators are as they were.

    For a training inside somebody's program.
    """
    threads = torch.get_num_threads()
    exact = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    workspace = os.environ.get(_WORKSPACE)
    random = torch.get_rng_state()
    gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None
    on_gpus = [] if gpu is None else torch.cuda.get_rng_state_all()
    streams = [] if gpu is None else [*map(torch.cuda.current_stream, _gpus())]
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(exact, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        if workspace is None:
            os.environ.pop(_WORKSPACE, None)
        torch.set_rng_state(random)
        if on_gpus:
            torch.cuda.set_rng_state_all(on_gpus)
        for stream in streams:
            torch.cuda.set_stream(stream)
        if gpu is not None:
            torch.cuda.set_device(gpu)


def _gpus() -> range:
    return range(torch.cuda.device_count())


def prepare_device(config: Config, world: World) -> torch.device:
    """Choose this process's device and stream; set torch's threads and, if asked, exact kernels.

    Raises:
        UserError: the device asked for isn't there, or can't train at the precision asked for.
    """
    torch.set_num_threads(threads_per_process(world.cores, os.environ))
    if config.deterministic:
        os.environ.setdefault(_WORKSPACE, ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    device = pick_device(config.device, world.local_rank, world.local_size)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # A program may have set another one; Horovod has its sums waited for in this one.
        torch.cuda.set_stream(torch.cuda.default_stream(device))
    elif config.precision == "float16":
        raise UserError(
            "precision=float16 needs a GPU; on a CPU take precision=float32 or bfloat16"
        )
    return device
