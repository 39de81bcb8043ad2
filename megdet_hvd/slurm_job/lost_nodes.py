"""Before a requeue after a failure: is a node lost, or bad?

Slurm must have seen that a node is lost. Slurm 22.05 forgets the GPUs of a job where it finds one
of its nodes down while the job is being requeued. Each later start of the job then fails ("Unable
to create step … Invalid generic resource (gres) specification"), and the GPUs of its other nodes
stay taken. Where it finds the node down while the job still runs, it requeues the job itself, on
other nodes. Waiting for that takes no longer: Slurm does not start a requeued job before it has
heard from all of its old nodes, or given them up.

A node that Slurm's controller reaches, and the job's first node does not, stays in the cluster:
the job would get it again, so it is left out of the requeue; and so is one on which a plain check
fails that another node passes.
"""

import time
from collections.abc import Callable, Sequence

from megdet_hvd.slurm_job import node_check, slurm

_LOOK_S = 2.0
_ACTS_S = 15.0
"""For Slurm to requeue the job, once it counts a node as down."""
_LATER_S = 60.0


def limit_s(node_timeout_s: float) -> float:
    """How long Slurm may take to count a node as down: it asks each every third of its limit."""
    return node_timeout_s * 1.5 + _LATER_S


def hears_s(node_timeout_s: float) -> float:
    """How long it may take to note that a node has not answered it once."""
    return node_timeout_s * 2 / 3 + _LATER_S


def find_bad(
    hosts: Sequence[str],
    probe: Callable[[], slurm.NodeProbe],
    say: Callable[[str], None],
    *,
    enough: Callable[[], bool],
) -> dict[str, str]:
    """Nodes that the job shall not get again, and why; where Slurm knows of one, it acts itself.

    Returns at once where all nodes answer; else waits until Slurm knows, and ends this process.
    Returns, too, where Slurm has had its time, or hears the node, or when ``enough()`` holds.
    """
    found = probe()
    bad = node_check.bad_nodes(found.said, hosts)
    silent = found.silent
    if found.unclear is not None:
        say(f"the nodes could not be tried ({found.unclear})")
        lost = slurm.not_heard(hosts)
        silent = f"Slurm does not hear {', '.join(lost)}" if lost else None
    if silent is None:
        return bad
    _wait(hosts, silent, say, enough)
    known = slurm.not_heard(hosts)  # Slurm gives it to no job
    return bad | {
        node: f"it does not answer ({silent})" for node in blamed(hosts, found) if node not in known
    }


def blamed(hosts: Sequence[str], found: slurm.NodeProbe) -> list[str]:
    """Which of the job's nodes does not answer: where none of several others does, the first."""
    silent = [node for node in hosts if node in found.silent_nodes]
    if not silent and found.said:
        silent = [node for node in hosts if node not in found.said]
    others = [node for node in silent if node != hosts[0]]
    if len(others) > 1 and len(others) == len(hosts) - 1:
        return [hosts[0]]
    return others


def _wait(
    hosts: Sequence[str], silent: str, say: Callable[[str], None], enough: Callable[[], bool]
) -> None:
    timeout_s = slurm.node_timeout_s()
    if timeout_s <= 0:
        return
    say(
        f"a node does not answer ({silent}); Slurm finds that out within about {timeout_s:.0f} s "
        "(its SlurmdTimeout), and gives the job other nodes"
    )
    began = time.monotonic()
    end, heard_until = began + limit_s(timeout_s), began + hears_s(timeout_s)
    while time.monotonic() < end and not enough():
        if slurm.is_down(hosts):
            end = min(end, time.monotonic() + _ACTS_S)
        elif time.monotonic() >= heard_until and not slurm.not_heard(hosts):
            say("Slurm itself hears all nodes of the job, so it will not act")
            return
        time.sleep(_LOOK_S)
