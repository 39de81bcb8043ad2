"""The text of a verdict: culprits first, then where every rank stands."""

from collections.abc import Mapping, Sequence

from megdet_hvd.grouping import keys_by_value
from megdet_hvd.job.watch.judge import Verdict, Wait
from megdet_hvd.job.watch.rank_state import MISSED_S, RankState
from megdet_hvd.wording import first_of, number_ranges, ranks_in_words

_HOSTS_SHOWN = 4


def report(
    verdict: Verdict,
    states: Mapping[int, RankState],
    hosts: Sequence[str],
    stacks: Mapping[int, str],
    exit_code: int,
) -> str:
    """The whole message. ``hosts`` by rank; ``stacks``: Python stacks of culprits, where sent."""
    lines = [f"error: the job hangs and is ended by its watchdog, exit code {exit_code}"]
    for reason, ranks in keys_by_value(verdict.culprits).items():
        lines.append(f"  {describe_who(ranks, hosts)}: {reason}")
    if not verdict.culprits:
        lines.append("  all ranks are there and nothing moves: the network, or what carries sums")
    lines += [f"  {_wait(wait)}" for wait in verdict.waits]
    lines.append("where the ranks stand:")
    for place, ranks in sorted(keys_by_value(_places(states)).items(), key=lambda item: item[1]):
        since_s = max(states[rank].age_s for rank in ranks)
        lines.append(f"  {describe_who(ranks, hosts)}: {place}, for {since_s:.0f} s")
    unknown = [r for r in range(len(hosts)) if r not in states or states[r].link == "never"]
    if unknown:
        lines.append(f"  {describe_who(unknown, hosts)}: unknown, no connection")
    for rank, stack in sorted(stacks.items()):
        lines.append(f"stack of rank {rank} ({hosts[rank]}):")
        lines += [f"  {line}" for line in stack.splitlines()]
    return "\n".join(lines)


def _places(states: Mapping[int, RankState]) -> dict[int, str]:
    """A few words on the place of each rank that was heard of."""
    return {rank: describe_place(state) for rank, state in states.items() if state.link != "never"}


def describe_place(state: RankState) -> str:
    """``step 5, in cgbn.layer1.forward.0 (8 values)``, after what is odd about it."""
    link = {"left": "left; ", "closed": "connection closed; "}.get(state.link, "")
    if state.silent_s >= MISSED_S:
        link += f"last heard of {state.silent_s:.0f} s ago; "
    step = f"step {state.step}, " if state.step else ""
    if state.kind == "waiting":
        length = f" ({state.elements} values)" if state.elements else ""
        return f"{link}{step}in {state.name}{length}"
    what = "computing" if state.kind == "computing" else f"outside of steps ({state.name})"
    return f"{link}{step}{what}"


def describe_who(ranks: Sequence[int], hosts: Sequence[str]) -> str:
    """Ranks and where they are: ``ranks 0-7, 16 (n1, n3)``."""
    names = list(dict.fromkeys(hosts[rank] for rank in ranks))
    return f"{ranks_in_words(ranks)} ({first_of(names, _HOSTS_SHOWN, ' hosts')})"


def _wait(wait: Wait) -> str:
    needs = f"{wait.name} needs ranks {number_ranges(wait.ranks)}"
    here = f"waited in for {wait.since_s:.0f} s by {number_ranges(wait.here)}"
    missing = f"missing: {number_ranges(wait.missing)}" if wait.missing else "none is missing"
    return f"{needs}; {here}; {missing}"
