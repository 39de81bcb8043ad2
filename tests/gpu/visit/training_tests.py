"""Trainings on the GPU in three precisions: their losses fall; recomputation changes no bit."""

from collections.abc import Iterator

from tests.gpu.visit.kernel_tests import TRAINING
from tests.gpu.visit.parts import Setting
from tests.gpu.visit.pytests import counts
from tests.gpu.visit.record import Value


def measure(setting: Setting) -> Iterator[tuple[str, Value]]:
    """tests/gpu/test_training_cuda.py."""
    yield from counts(setting, [TRAINING])
