"""Which ranks differ from the rest, in words. Equal facts give equal words on all ranks."""

import hashlib
from collections.abc import Mapping, Sequence

from megdet_hvd.grouping import grouped, keys_by_value
from megdet_hvd.job.world import Machines, machine_names
from megdet_hvd.preflight.facts import RankFacts
from megdet_hvd.wording import first_of, number_ranges, ranks_in_words

_MOST = 8
"""So many problems are listed."""


def check_facts(facts: Sequence[RankFacts], machines: Machines) -> str | None:
    """Why the job can't run as it stands; None: it can.

    Args:
        facts: of every rank, in rank order.
        machines: ranks of each machine.
    """
    where = _Where([facts[ranks[0]].host for ranks in machines], machines)
    problems = [
        *_sizes(facts, where),
        *_digests("code", [fact.code for fact in facts], "update the checkout there", where),
        *_digests(
            "configuration",
            [fact.settings for fact in facts],
            "give the same --config, overrides and files everywhere",
            where,
        ),
        *_versions(facts, where),
        *_devices(facts, where),
    ]
    if not problems:
        return None
    more = [f"and {len(problems) - _MOST} more"] if len(problems) > _MOST else []
    lines = "\n".join(f"  {problem}" for problem in [*problems[:_MOST], *more])
    return f"preflight: the ranks don't fit together:\n{lines}"


class _Where:
    """Ranks, and the machines that they stand on."""

    def __init__(self, hosts: Sequence[str], machines: Machines) -> None:
        self.names = machine_names(hosts)
        self.machines = machines

    def __call__(self, ranks: Sequence[int]) -> str:
        """``ranks 8-15 (n2)``."""
        names = [
            name
            for name, there in zip(self.names, self.machines, strict=True)
            if not set(there).isdisjoint(ranks)
        ]
        return f"{ranks_in_words(ranks)} ({first_of(names, 4)})"


def differing(values: Sequence[str], where: _Where) -> str | None:
    """``ranks 8-15 (n2) have x, the other 120 ranks y``; None: all are equal.

    The others are the majority; of equally many, those of the lowest rank.
    """
    ranks = grouped(range(len(values)), values.__getitem__)
    if len(ranks) == 1:
        return None
    usual = max(ranks, key=lambda value: len(ranks[value]))
    parts = [
        f"{where(those)} {'have' if len(those) > 1 else 'has'} {value}"
        for value, those in ranks.items()
        if value != usual
    ]
    rest = len(ranks[usual])
    others = f"the other {rest} ranks" if rest > 1 else f"rank {ranks[usual][0]}"
    return f"{', '.join(parts)}, {others} {usual}"


def _digests(what: str, digests: Sequence[Mapping[str, str]], fix: str, where: _Where) -> list[str]:
    keys = dict.fromkeys(key for each in digests for key in each)
    changed = [key for key in keys if len({each.get(key) for each in digests}) > 1]
    values = ["/".join(each.get(key, "none") for key in changed) for each in digests]
    if len(changed) > 1:
        values = [hashlib.sha256(value.encode()).hexdigest()[:8] for value in values]
    if (text := differing(values, where)) is None:
        return []
    return [f"{what} differs in {first_of(changed, 5)}: {text}; {fix}"]


def _versions(facts: Sequence[RankFacts], where: _Where) -> list[str]:
    names = dict.fromkeys(name for fact in facts for name in fact.versions)
    found = []
    for name in names:
        values = [fact.versions.get(name, "unknown") for fact in facts]
        if text := differing(values, where):
            found.append(f"{name} differs: {text}; use one environment everywhere (make setup)")
    return found


def _sizes(facts: Sequence[RankFacts], where: _Where) -> list[str]:
    found = []
    asked = next((fact.nodes for fact in facts if fact.nodes), None)
    if asked is not None and asked != len(where.machines):
        found.append(
            f"{asked} machines were asked for and ranks run on {len(where.machines)} "
            f"({', '.join(where.names[:8])}); give the launcher the whole allocation"
        )
    for name, ranks in zip(where.names, where.machines, strict=True):
        wanted = facts[ranks[0]].tasks_per_node
        if wanted is not None and wanted != len(ranks):
            found.append(
                f"{name} runs {len(ranks)} ranks ({number_ranges(ranks)}), {wanted} were asked "
                "for; look at --ntasks-per-node and at the launcher's slots"
            )
    return found


def _devices(facts: Sequence[RankFacts], where: _Where) -> list[str]:
    stuck = {r: fact.problem for r, fact in enumerate(facts) if fact.problem is not None}
    found = [f"{where(ranks)}: {problem}" for problem, ranks in keys_by_value(stuck).items()]
    if found:
        return found
    on_gpu = ["a GPU" if fact.gpu_uuid else "none" for fact in facts]
    if text := differing(on_gpu, where):
        found.append(f"some ranks compute on a GPU, others don't: {text}; or pass device=cpu")
    gpus = {rank: (fact.host, fact.gpu_uuid) for rank, fact in enumerate(facts) if fact.gpu_uuid}
    for (_, uuid), ranks in keys_by_value(gpus).items():
        if len(ranks) > 1:
            found.append(
                f"{where(ranks)} share one GPU ({uuid}); start one process per GPU, and let "
                "CUDA_VISIBLE_DEVICES show each task all of them, or one of its own"
            )
    return found
