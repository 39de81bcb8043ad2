"""Before a requeue after a failure: Slurm must have seen that a node is lost.

Slurm 22.05 forgets the GPUs of a job where it finds one of its nodes down while the job is being
requeued. Each later start of the job then fails ("Unable to create step … Invalid generic
resource (gres) specification"), and the GPUs of its other nodes stay taken. Where it finds the node
down while the job still runs, it requeues the job itself, on other nodes. Waiting for that takes
no longer: Slurm does not start a requeued job before it has heard from all of its old nodes, or
given them up.
"""

import time
from collections.abc import Callable, Sequence

from megdet_hvd.slurm_job import slurm

_LOOK_S = 2.0
_ACTS_S = 15.0
"""For Slurm to requeue the job, once it counts a node as down."""
_LATER_S = 60.0


def limit_s(node_timeout_s: float) -> float:
    """How long Slurm may take to count a node as down: it asks each every third of its limit."""
    return node_timeout_s * 1.5 + _LATER_S


def wait_until_seen(
    hosts: Sequence[str], say: Callable[[str], None], *, enough: Callable[[], bool]
) -> None:
    """Return at once where all nodes answer; else wait until Slurm knows, and ends this process.

    Returns, too, where Slurm has had its time, or when ``enough()`` holds.
    """
    problem = slurm.silence(len(hosts))
    if problem is None:
        return
    timeout_s = slurm.node_timeout_s()
    if timeout_s <= 0:
        return
    say(
        f"a node does not answer ({problem}); Slurm finds that out within about {timeout_s:.0f} s "
        "(its SlurmdTimeout), and gives the job other nodes"
    )
    end = time.monotonic() + limit_s(timeout_s)
    while time.monotonic() < end and not enough():
        if slurm.is_down(hosts):
            end = min(end, time.monotonic() + _ACTS_S)
        time.sleep(_LOOK_S)
