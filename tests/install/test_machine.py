"""Reading what compilers and MPI launchers print, and choosing the CUDA toolkit."""

from pathlib import Path

import pytest

from install.machine import cuda_toolkit, nvcc_release, open_mpi_version, toolkit_home
from install.problem import SetupProblem

NVCC = """nvcc: NVIDIA (R) Cuda compiler driver
Copyright (c) 2005-2024 NVIDIA Corporation
Cuda compilation tools, release {release}, V{release}.131
Build cuda_{release}.r{release}/compiler.34097967_0"""


def fake_toolkit(folder: Path, release: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    nvcc = folder / "bin" / "nvcc"
    nvcc.write_text(f"#!/bin/sh\ncat <<'END'\n{NVCC.format(release=release)}\nEND\n")
    nvcc.chmod(0o755)
    return folder


def test_versions_from_what_programs_print() -> None:
    assert nvcc_release(NVCC.format(release="12.4")) == "12.4"
    assert nvcc_release("command not found") == ""
    open_mpi = "mpirun (Open MPI) 4.1.8\n\nReport bugs to http://www.open-mpi.org/community/help/"
    assert open_mpi_version(open_mpi) == "openmpi-4.1.8"
    assert open_mpi_version("HYDRA build details:\n    Version:   4.2.1\n") == "mpich-4.2.1"
    intel = "Intel(R) MPI Library for Linux* OS, Version 2021.12 Build 20240410"
    assert open_mpi_version(intel) == "intelmpi-2021.12"
    assert open_mpi_version("") == ""


def test_the_toolkit_of_torchs_major_version_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    old = fake_toolkit(tmp_path / "cuda 12", "12.4")
    new = fake_toolkit(tmp_path / "cuda 13", "13.1")
    assert cuda_toolkit({"CUDA_HOME": str(old)}, "12.8") == (old, "12.4")
    assert cuda_toolkit({"CUDA_HOME": str(old)}, "13.0") is None
    both = {"CUDA_HOME": str(old), "HOROVOD_CUDA_HOME": str(new)}
    assert cuda_toolkit(both, "13.0") == (new, "13.1")
    assert cuda_toolkit({}, "13.0") is None


def test_the_nvcc_on_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = fake_toolkit(tmp_path / "cuda", "12.8")
    monkeypatch.setenv("PATH", f"{home / 'bin'}:/usr/bin:/bin")
    assert cuda_toolkit({}, "12.8") == (home, "12.8")


def test_a_named_toolkit_of_another_version_is_refused(tmp_path: Path) -> None:
    home = fake_toolkit(tmp_path / "cuda", "12.4")
    with pytest.raises(SetupProblem, match=r"holds CUDA 12\.4, but this torch .* CUDA 13\.0"):
        cuda_toolkit({"HOROVOD_CUDA_HOME": str(home)}, "13.0")


def test_a_script_that_stands_before_nvcc_is_seen_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = fake_toolkit(tmp_path / "cuda-12.4", "12.4")
    real = home / "bin" / "nvcc"
    text = real.read_text().replace("cat", 'echo "#$ _HERE_=$(dirname "$0")" >&2\ncat')
    real.write_text(text)
    script = tmp_path / "bin" / "nvcc"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{real}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    assert cuda_toolkit({}, "12.8") == (home, "12.4")
    assert toolkit_home("#$ _SPACE_= \n#$ _HERE_=/opt/cuda 12/bin\n") == Path("/opt/cuda 12")
    assert toolkit_home("nvcc: not found") is None
