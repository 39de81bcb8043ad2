"""float16 with a gradient scaler: one rank's overflow is everybody's, and nobody's weights move."""

from collections.abc import Iterator

from tests.gpu.visit.parts import Setting
from tests.gpu.visit.ranks import all_equal, run_case
from tests.gpu.visit.record import Value


def measure(setting: Setting) -> Iterator[tuple[str, Value]]:
    """Rank 1's second step overflows. The first ones may, too, until the scale has found itself."""
    ended = run_case(setting, "overflow", 2)
    yield "exit code", ended.code
    for rank, found in enumerate(ended.ranks):
        yield f"rank {rank}, weights moved in step 2", found.get("moved_2", "never got there")
        yield f"rank {rank}, scale after step 2 to before", found.get("scaled_2", 0)
    keys = sorted({key for rank in ended.ranks for key in rank if key.startswith("scaled_")})
    yield "scales equal", bool(keys) and all(all_equal(ended.ranks, key) for key in keys)
    yield "weights equal to the bit", all_equal(ended.ranks, "weights")
    yield (
        "steps that moved weights",
        sum(bool(ended.ranks[0].get(f"moved_{step}")) for step in range(1, 5)),
    )
