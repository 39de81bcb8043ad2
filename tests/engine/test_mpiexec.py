"""``mpiexec -n 4`` with MPI's or Gloo's messages: the same training, with CGBN per machine."""

from pathlib import Path

import pytest

from tests.pool import on_ranks


@pytest.mark.tail  # that the gradient depends on neither: test_gradients.py, over both
def test_mpi_and_gloo_carry_the_same_training(tmp_path: Path) -> None:
    told: list[list[float]] = []
    for name, env in (("mpi", {}), ("gloo", {"HOROVOD_CPU_OPERATIONS": "gloo"})):
        folder = tmp_path / name
        done = on_ranks("tests.engine.check_mpiexec:trained", 4, folder, timeout_s=240, env=env)
        assert all(one == done.values[0] for one in done.values)
        told.append(done.values[0])
    assert len(told) == 2 and len(told[0]) == 2
    assert all(abs(a - b) < 2e-3 for a, b in zip(*told, strict=True)), told
