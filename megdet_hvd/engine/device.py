"""A training process's device, threads and kernels."""

import os

import torch

from megdet_hvd.cluster.threads import threads_per_process
from megdet_hvd.comm.world import World
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError
from megdet_hvd.evaluation.device import pick_device


def prepare_device(config: Config, world: World) -> torch.device:
    """Choose this process's device; set torch's threads, and repeatable kernels where asked for.

    Raises:
        UserError: the device asked for isn't there, or can't train at the precision asked for.
    """
    torch.set_num_threads(threads_per_process(world.cores, os.environ))
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    device = pick_device(config.device, world.local_rank, world.local_size)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    elif config.precision == "float16":
        raise UserError(
            "precision=float16 needs a GPU; on a CPU take precision=float32 or bfloat16"
        )
    return device
