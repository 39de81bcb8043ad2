"""What a training starts before anything else: the server that its loader processes come from.

The server is a fresh interpreter that imports torch, which takes as long as all of this process's
own imports. Started first, it does so beside them; started with the first loader, training would
wait for it.
"""

import os
from contextlib import suppress

from megdet_hvd.cluster.driver import driver_version
from megdet_hvd.cluster.launch import Launch, read_launch
from megdet_hvd.cluster.threads import cores_for_loading, cores_per_process
from megdet_hvd.config.schema import Config
from megdet_hvd.data.worker_count import configured_workers
from megdet_hvd.data.workers import start_server


def start_early(config: Config) -> None:
    """Start the server where this process will have loaders of its own. Returns at once.

    How many is not known for certain before the processes have met. A server too many sleeps to
    the end of the run; where one is missing, the first loader starts it.
    """
    launch = read_launch(os.environ)
    on_gpu = config.device != "cpu" and bool(driver_version())
    cores = cores_for_loading(likely_cores(launch, os.sched_getaffinity(0)), on_gpu=on_gpu)
    processes = (launch.size or 1) * config.learning.accumulation
    loaders = configured_workers(
        config.data,
        images=-(-config.global_batch // processes) * config.learning.accumulation,
        min_size=max(config.data.min_sizes),
        local_size=launch.local_size or 1,
        cores=cores,
    )
    if loaders:
        with suppress(OSError, EOFError):  # the first loader says so
            start_server()


def likely_cores(launch: Launch, own: set[int]) -> int:
    """Cores of this process, which may run on ``own``, before it knows of those beside it.

    Where as many for each of them are more than the machine has, they share these.
    """
    beside = launch.local_size or 1
    bound = len(own) * beside <= (os.cpu_count() or 1)
    return cores_per_process([frozenset(own)] * (1 if bound else beside))
