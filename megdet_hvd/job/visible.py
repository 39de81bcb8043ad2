"""The GPUs that torch shows this process, once the list that CUDA reads has been put right."""

import os

from megdet_hvd.cluster.gpus import VISIBLE, list_to_set


def shown_gpus() -> int:
    """How many torch can use; 0: none. Sets CUDA_VISIBLE_DEVICES where a launcher left it empty.

    Whoever wants to know whether there is a GPU asks here, not torch: CUDA reads the list once,
    when it is first asked.
    """
    import torch

    before = os.environ.get(VISIBLE)
    if list_to_set(os.environ, None) is not None:
        os.environ.pop(VISIBLE, None)
        openable = torch.cuda.device_count()  # by the driver's own library; CUDA stays asleep
        if before is not None:
            os.environ[VISIBLE] = before
        wanted = list_to_set(os.environ, openable)
        if wanted is not None and openable:
            os.environ[VISIBLE] = wanted
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
