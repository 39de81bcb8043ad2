"""What the measured exchanges say: the slowest link, and machines far below the others."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from megdet_hvd.job.world import Machines

FAR_BELOW = 0.5
"""A machine is far below the others where its links have less than this of the median's rate."""


@dataclass(frozen=True)
class Exchange:
    """Two ranks that sent each other a small and a large message, both ways at once."""

    a: int
    b: int
    small_bytes: int
    large_bytes: int
    small_s: float
    """Of the later of the two, start of the exchange included."""
    large_s: float

    @property
    def rate(self) -> float:
        """Bytes a second each way, the time of the small message left out."""
        extra = self.large_s - self.small_s
        if extra < 0.05 * self.large_s:  # too quick to tell apart
            return self.large_bytes / self.large_s
        return (self.large_bytes - self.small_bytes) / extra


@dataclass(frozen=True)
class NetworkLink:
    """Two machines, or two ranks within one."""

    machines: tuple[int, int]
    ranks: tuple[int, int]
    """The first pair of ranks on it."""
    rate: float
    """Bytes a second each way, over all its pairs of ranks together."""
    latency_s: float
    """Of a small message, the slowest pair's."""


def links_of(exchanges: Sequence[Exchange], machines: Machines) -> list[NetworkLink]:
    """Exchanges of the same two machines are one link, their rates added; others stand alone."""
    machine = {rank: i for i, ranks in enumerate(machines) for rank in ranks}
    between: dict[tuple[int, int], list[Exchange]] = {}
    links = []
    for each in exchanges:
        a, b = sorted((machine[each.a], machine[each.b]))
        if a == b:
            links.append(NetworkLink((a, a), (each.a, each.b), each.rate, each.small_s))
        else:
            between.setdefault((a, b), []).append(each)
    for pair, those in between.items():
        rate = sum(each.rate for each in those)
        latency = max(each.small_s for each in those)
        links.append(NetworkLink(pair, (those[0].a, those[0].b), rate, latency))
    return links


def far_below(links: Sequence[NetworkLink]) -> dict[int, tuple[float, float]]:
    """Machines whose links are far slower than those of the others, with both rates.

    A machine counts by the median of its links (of two, the faster), since the link to a slow
    machine is slow for its partner too. With one link in all nobody can say whose fault it is.
    """
    rates: dict[int, list[float]] = {}
    for link in links:
        for machine in dict.fromkeys(link.machines):
            rates.setdefault(machine, []).append(link.rate)
    figures = {machine: statistics.median_high(found) for machine, found in rates.items()}
    if len(figures) < 2:
        return {}
    usual = statistics.median(figures.values())
    return {
        machine: (figure, usual)
        for machine, figure in sorted(figures.items())
        if figure < FAR_BELOW * usual
    }


def describe_links(links: Sequence[NetworkLink], names: Sequence[str]) -> list[str]:
    """A line for the links between machines, and one for those within."""
    lines = []
    outer = [link for link in links if link.machines[0] != link.machines[1]]
    inner = [link for link in links if link.machines[0] == link.machines[1]]
    if outer:
        slow = min(outer, key=lambda link: link.rate)
        a, b = (names[machine] for machine in slow.machines)
        lines.append(f"between machines: {_slowest(f'{a} – {b}', slow, outer)}")
    if inner:
        slow = min(inner, key=lambda link: link.rate)
        place = f"ranks {slow.ranks[0]} – {slow.ranks[1]} on {names[slow.machines[0]]}"
        lines.append(f"within machines: {_slowest(place, slow, inner)}")
    return lines


def _slowest(place: str, slow: NetworkLink, links: Sequence[NetworkLink]) -> str:
    text = f"slowest link {place}: {write_rate(slow.rate)}, {slow.latency_s * 1e6:.0f} µs"
    if len(links) == 1:
        return text
    rate = statistics.median(link.rate for link in links)
    latency = statistics.median(link.latency_s for link in links)
    return f"{text} (median of {len(links)}: {write_rate(rate)}, {latency * 1e6:.0f} µs)"


def warn_of_slow(links: Sequence[NetworkLink], names: Sequence[str]) -> list[str]:
    """A warning for each machine far below the others."""
    warnings = []
    outer = [link for link in links if link.machines[0] != link.machines[1]]
    inner = [link for link in links if link.machines[0] == link.machines[1]]
    for kind, those, where in (
        ("to other machines", outer, "its network port, cable and driver (NCCL_SOCKET_IFNAME, "
         "NCCL_IB_HCA)"),
        ("between its ranks", inner, "its processes' cores, other jobs, and links between GPUs "
         "(nvidia-smi topo -m)"),
    ):  # fmt: skip
        for machine, (rate, usual) in far_below(those).items():
            warnings.append(
                f"{names[machine]} is far below the others: {write_rate(rate)} {kind}, the median "
                f"machine has {write_rate(usual)}. Every step waits for it: look at {where}, or "
                f"leave it out (sbatch --exclude={names[machine].split()[0]})"
            )
    return warnings


def write_rate(rate: float) -> str:
    """Bytes a second as MB/s, with two figures at least."""
    megabytes = rate / 1e6
    return f"{megabytes:.0f} MB/s" if megabytes >= 10 else f"{megabytes:.2g} MB/s"
