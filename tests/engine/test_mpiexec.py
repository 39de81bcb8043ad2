"""``mpiexec -n 4`` with MPI's or Gloo's messages: the same training, with CGBN per machine."""

from pathlib import Path

from tests.ranks import run_ranks

CHECK = Path(__file__).with_name("check_mpiexec.py")


def test_mpi_and_gloo_carry_the_same_training(tmp_path: Path) -> None:
    told = []
    for name, env in (("mpi", {}), ("gloo", {"HOROVOD_CPU_OPERATIONS": "gloo"})):
        done = run_ranks(CHECK, 4, tmp_path / name, launcher="mpirun", timeout_s=240, env=env)
        assert done.returncode == 0, done.stdout
        lines = done.stdout.splitlines()
        told += [[float(word) for word in line.split()[1:]] for line in lines if "losses" in line]
    assert len(told) == 2 and len(told[0]) == 2
    assert all(abs(a - b) < 2e-3 for a, b in zip(*told, strict=True)), told
