"""What ``scontrol`` says of jobs and nodes, and whether a job can do without a node. Pure."""

import re
from collections.abc import Collection, Mapping, Sequence

from megdet_hvd.cluster.hostlist import expand_hosts

_LOST = frozenset(("DOWN", "NOT_RESPONDING", "FAIL", "FAILING", "UNKNOWN"))
_AWAY = _LOST | {"DRAIN", "DRAINED", "DRAINING", "MAINT", "REBOOT", "FUTURE", "FUTR", "INVAL"}
"""A node whose power is off is none of them: Slurm starts it for a job."""
_KIND = ("Gres", "CPUTot", "ActiveFeatures")
NOTHING = ("", "(null)", "N/A", "None")
"""Slurm's words for no value."""


def facts_of(line: str) -> dict[str, str]:
    """``Name=value`` pairs of a line of ``scontrol show -o``; values may hold spaces."""
    marks = list(re.finditer(r"(?:^|\s)([A-Za-z][\w/:]*)=", line))
    ends = [*(mark.start() for mark in marks[1:]), len(line)]
    return {m[1]: line[m.end() : end].strip() for m, end in zip(marks, ends, strict=False)}


def is_away(state: str) -> bool:
    """Whether a node in this state takes no job, or does not answer Slurm."""
    return is_lost(state) or not _AWAY.isdisjoint(_words(state))


def is_lost(state: str) -> bool:
    """Whether a node in this state does not answer Slurm, or is taken for lost."""
    return "*" in state or not _LOST.isdisjoint(_words(state))


def _words(state: str) -> list[str]:
    """``MIXED+DRAIN~`` as its words; the sign at the end tells of power and of reservations."""
    return re.findall(r"[A-Z_]+", state)


def hosts_in(text: str) -> list[str]:
    """The nodes of one of Slurm's lists; none for its words for nothing."""
    return [] if text in NOTHING else expand_hosts(text)


def can_do_without(
    bad: Collection[str],
    *,
    job: Mapping[str, str],
    nodes: Sequence[Mapping[str, str]],
    hosts: Sequence[str],
) -> str | None:
    """None: the job finds as many nodes of its kind elsewhere; else why it doesn't.

    Args:
        bad: the nodes that it shall not get again.
        job: what Slurm says of it.
        nodes: what Slurm says of all nodes.
        hosts: those that it has; nodes of the same kind serve, too.
    """
    wanted = set(hosts_in(job.get("ReqNodeList", "")))
    if pinned := sorted(wanted & set(bad)):
        return f"the job asks for {', '.join(pinned)} by name (--nodelist)"
    kinds = {tuple(n.get(k) for k in _KIND) for n in nodes if n.get("NodeName") in hosts}
    out = {*bad, *hosts_in(job.get("ExcNodeList", ""))}
    partitions = set(job.get("Partition", "").split(","))
    left = [
        node
        for node in nodes
        if node.get("NodeName") not in out
        and not is_away(node.get("State", "UNKNOWN"))
        and tuple(node.get(key) for key in _KIND) in kinds
        and partitions & set(node.get("Partitions", "").split(","))
    ]
    if len(left) < len(hosts):
        count = f"{len(left)} {'node' if len(left) == 1 else 'nodes'}"
        return f"without it {count} would be left, and the job takes {len(hosts)}"
    return None
