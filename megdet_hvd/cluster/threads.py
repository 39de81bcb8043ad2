"""How many CPU threads a process may use, so that ranks of one machine do not fight."""

from collections.abc import Mapping, Sequence


def cores_per_process(affinities: Sequence[frozenset[int]]) -> int:
    """Cores for each process of one machine, at least 1.

    ``affinities`` are the sets of cores that its processes may run on. Their union is shared
    evenly, which is right both where the launcher binds each process to cores of its own and
    where all of them see every core.
    """
    return max(1, len(frozenset().union(*affinities)) // max(1, len(affinities)))


def threads_per_process(cores: int, environ: Mapping[str, str]) -> int:
    """Threads for tensor kernels: what the user set in OMP_NUM_THREADS, else ``cores``."""
    text = environ.get("OMP_NUM_THREADS", "").strip()
    return int(text) if text.isdigit() and int(text) > 0 else cores


BUSY_BESIDE_A_GPU = 3
"""Threads of a process that trains on a GPU which keep a core busy, about: the training thread and
autograd's, which launch kernels by turns, and take one; Horovod's, which looks for messages and
waits for events; and NCCL's proxies."""


def cores_for_loading(cores: int, *, on_gpu: bool) -> int:
    """Of a process's ``cores``, those that ``data.workers=auto`` may reckon with.

    It leaves one of them to training anyway.
    """
    return max(1, cores - BUSY_BESIDE_A_GPU + 1) if on_gpu else cores
