"""All of tests/gpu that takes seconds: kernels against float64 and against the CPU's."""

from collections.abc import Iterator

from tests.gpu.visit import fused, peer
from tests.gpu.visit.parts import Setting
from tests.gpu.visit.pytests import counts
from tests.gpu.visit.record import Value

TRAINING = "tests/gpu/test_training_cuda.py"
ELSEWHERE = ("tests/gpu/visit", TRAINING, fused.TESTS, peer.TESTS)
"""In parts of their own, or none of a GPU's."""


def measure(setting: Setting) -> Iterator[tuple[str, Value]]:
    """Whatever stands there, but for what other parts run."""
    yield from counts(setting, ["tests/gpu", *(f"--ignore={path}" for path in ELSEWHERE)])
