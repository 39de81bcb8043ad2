"""What is said of a rank at once when it is lost, before anything can be judged. Pure."""

from collections.abc import Mapping, Sequence

from megdet_hvd.grouping import keys_by_value
from megdet_hvd.job.watch.rank_state import RankState
from megdet_hvd.job.watch.report import describe_place, describe_who


def terminated_words(lost: Mapping[int, RankState], hosts: Sequence[str]) -> list[str]:
    """A line for each place at which SIGTERM came to ranks. ``hosts`` by rank."""
    places = {rank: describe_place(state) for rank, state in lost.items()}
    return [
        f"SIGTERM came to {describe_who(ranks, hosts)}: {place}"
        for place, ranks in keys_by_value(places).items()
    ]


def failed_words(
    lost: Mapping[int, RankState], failures: Mapping[int, str], hosts: Sequence[str]
) -> list[str]:
    """A line for each failure that ranks have told of themselves. ``failures``: why, by rank."""
    whys = {
        rank: f"{failures[rank]} ({describe_place(_heard(state))})" for rank, state in lost.items()
    }
    return [
        f"error: {describe_who(ranks, hosts)} failed: {why}"
        for why, ranks in keys_by_value(whys).items()
    ]


def ended_words(
    lost: Mapping[int, RankState], states: Mapping[int, RankState], hosts: Sequence[str]
) -> list[str]:
    """A line for each place at which processes ended that had said no good-bye.

    ``lost``: as they stood when they were last heard of, ``silent_s`` before their end.
    ``states``: those of the others now; whoever waits for one of them is named.
    """
    lines = []
    places = {rank: describe_place(_heard(state)) for rank, state in lost.items()}
    for place, ranks in keys_by_value(places).items():
        unheard_s = max(lost[rank].silent_s for rank in ranks)
        who = describe_who(ranks, hosts)
        verb = "have" if len(ranks) > 1 else "has"
        line = f"error: {who} {verb} ended without a word, {unheard_s:.1f} s before: {place}"
        waits = {
            other: state.name
            for other, state in states.items()
            if other not in lost and state.kind == "waiting" and {*state.ranks} & {*ranks}
        }
        for name, others in keys_by_value(waits).items():
            verb = "wait" if len(others) > 1 else "waits"
            line += f"; {describe_who(others, hosts)} {verb} in {name}"
        lines.append(line)
    return lines


def _heard(state: RankState) -> RankState:
    """Without the silence, which is told of in its own words."""
    return RankState(state.kind, state.name, state.ranks, state.elements, step=state.step)
