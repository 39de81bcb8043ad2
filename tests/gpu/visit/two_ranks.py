"""Two Horovod processes on the GPU: CGBN's sums and gradients through NCCL, equal to the bit."""

from collections.abc import Iterator

from tests.gpu.visit.parts import Setting
from tests.gpu.visit.ranks import all_equal, run_case
from tests.gpu.visit.record import Value


def measure(setting: Setting) -> Iterator[tuple[str, Value]]:
    """Times are of sockets on one machine: only the difference between the two ways counts."""
    found = {}
    for way, words in (("async", ()), ("blocking", ("--blocking",))):
        ended = run_case(setting, "steps", 2, *words, name=way)
        found[way] = ended.ranks
        yield f"{way}, exit code", ended.code
        yield f"{way}, Horovod", "; ".join(ended.ranks[0].get("Horovod", ()))
        yield f"{way}, weights equal to the bit", all_equal(ended.ranks, "all")
        for what in ("sums", "sum_ms", "sums_ms", "step_ms"):
            if what in ended.ranks[0]:
                shown = f"{what.removesuffix('_ms')}, ms" if what.endswith("_ms") else what
                yield f"{way}, {shown}", ended.ranks[0][what]
    both = [found["async"][0], found["blocking"][0]]
    yield "async and blocking equal to the bit", all_equal(both, "all")
    if all("sum_ms" in one for one in both):
        yield "blocking to async sum, times", both[1]["sum_ms"] / both[0]["sum_ms"]
