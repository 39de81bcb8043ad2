"""Four processes that take themselves for two machines: two process sets beside the global one."""

from collections.abc import Iterator

from tests.gpu.visit.parts import Setting
from tests.gpu.visit.ranks import all_equal, run_case
from tests.gpu.visit.record import Value


def measure(setting: Setting) -> Iterator[tuple[str, Value]]:
    """Weights are everybody's, running statistics those of a machine."""
    ended = run_case(setting, "steps", 4, "--machines", 0, 0, 1, 1, limit_s=75)
    yield "exit code", ended.code
    yield "weights equal to the bit", all_equal(ended.ranks, "weights")
    first, second = ended.ranks[:2], ended.ranks[2:]
    yield "statistics equal within machines", all_equal(first, "all") and all_equal(second, "all")
    yield "statistics equal between machines", all_equal(ended.ranks, "all")
    if "step_ms" in ended.ranks[0]:
        yield "step, ms", ended.ranks[0]["step_ms"]
