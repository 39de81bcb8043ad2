"""How many loader processes a rank has, from its cores and the machine's shared memory."""

import os
import shutil
from typing import Literal

from megdet_hvd.config.schema import DataConfig

MAX_AUTO_WORKERS = 4
STEPS_AHEAD = 2
"""Steps that each worker loads ahead."""


def worker_count(
    setting: int | Literal["auto"],
    *,
    cores: int,
    local_size: int,
    step_bytes: int = 0,
    shared_bytes: int | None = None,
) -> int:
    """Loader processes for this rank.

    ``auto`` leaves one core of the rank's share to training: the share less one, at most 4, and
    0 (load in a thread of the training process) where the share is a single core.

    Args:
        setting: the configured number, or "auto".
        cores: cores this process may run on (``len(os.sched_getaffinity(0))``).
        local_size: ranks of this machine. A launcher that binds ranks to cores has divided them
            already; give 1 then.
        step_bytes: what one step's pictures take in shared memory, through which workers hand
            them over; each keeps `STEPS_AHEAD` of them there, and one more while one grows.
        shared_bytes: shared memory of the machine; containers often have only 64 MB, and a
            worker that finds it full is killed. None: enough.
    """
    if setting != "auto":
        return setting
    share = max(local_size, 1)
    count = min(MAX_AUTO_WORKERS, cores // share - 1)
    if shared_bytes is not None and step_bytes > 0:
        count = min(count, shared_bytes // share // (step_bytes * (STEPS_AHEAD + 1)))
    return max(0, count)


def shared_memory_bytes() -> int | None:
    """Free shared memory of this machine; None where that can't be told."""
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:
        return None


def configured_workers(
    config: DataConfig,
    *,
    images: int,
    min_size: int,
    local_size: int,
    cores: int | None = None,
) -> int:
    """The loader processes of a rank that loads by these settings.

    Args:
        config: the setting, and the longer side of pictures.
        images: pictures of a step, on this rank.
        min_size: the shorter side of pictures, in pixels.
        local_size: ranks of this machine.
        cores: this rank's own share of them; None: those it may run on, shared by all ranks.
    """
    # Where the launcher bound each rank to cores of its own, dividing those again by the ranks
    # would leave none for loading.
    return worker_count(
        config.workers,
        cores=len(os.sched_getaffinity(0)) if cores is None else cores * local_size,
        local_size=local_size,
        step_bytes=images * 3 * config.max_size * min_size,
        shared_bytes=shared_memory_bytes(),
    )
