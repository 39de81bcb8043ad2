"""All of tests/gpu that takes seconds: kernels against float64 and against the CPU's."""

from collections.abc import Iterator

from tests.gpu.visit.parts import Setting
from tests.gpu.visit.pytests import counts
from tests.gpu.visit.record import Value

TRAINING = "tests/gpu/test_training_cuda.py"


def measure(setting: Setting) -> Iterator[tuple[str, Value]]:
    """Whatever stands there, the trainings aside."""
    yield from counts(setting, ["tests/gpu", "--ignore=tests/gpu/visit", f"--ignore={TRAINING}"])
