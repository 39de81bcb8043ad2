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
