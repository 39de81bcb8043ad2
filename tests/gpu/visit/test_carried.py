"""What is carried, that it arrives whole, and the environment that is made of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from install.build_horovod import Plan, build_environ
from install.pins import VERSIONS_FILE, read_versions
from install.problem import SetupProblem
from tests.gpu.visit.carried import WHEELS, Manifest, read_carried, write_manifest
from tests.gpu.visit.environment import make_environment
from tests.gpu.visit.horovod_build import linked_nccl, linked_toolkit
from tests.gpu.visit.pack import check_size, names_in, needed, requirement_lines, roots

VERSIONS = read_versions(VERSIONS_FILE.read_text(encoding="utf-8"))
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


def filled(folder: Path) -> Manifest:
    (folder / WHEELS).mkdir(parents=True)
    (folder / "horovod-edited.tar.gz").write_bytes(b"sources")
    return write_manifest(folder, RUNNING, VERSIONS.default_torch, "horovod-edited.tar.gz")


def test_what_was_damaged_on_its_way_is_refused(tmp_path: Path) -> None:
    made = filled(tmp_path)
    assert read_carried(tmp_path) == made and list(made.files) == ["horovod-edited.tar.gz"]
    (tmp_path / "horovod-edited.tar.gz").write_bytes(b"sourceS")
    with pytest.raises(SetupProblem, match=r"horovod-edited\.tar\.gz is another file"):
        read_carried(tmp_path)
    (tmp_path / "horovod-edited.tar.gz").unlink()
    with pytest.raises(SetupProblem, match="is missing: it was damaged"):
        read_carried(tmp_path)
    with pytest.raises(SetupProblem, match=r"holds no carried\.json"):
        read_carried(tmp_path / WHEELS)


def test_everything_that_is_imported_is_carried_or_there() -> None:
    wanted = needed(roots(VERSIONS, VERSIONS.default_torch))
    assert {"pydantic", "pydantic-core", "pycocotools", "cffi", "pycparser", "pytest"} <= wanted
    assert not {"torch", "mpi4py", "tensorboard", "grpcio"} & wanted
    lines = requirement_lines(VERSIONS.default_torch, wanted - needed(["torch", "torchvision"]))
    assert all("==" in line and "--hash=sha256:" in line for line in lines)
    with pytest.raises(SetupProblem, match="lacks no-such-package: make lock"):
        requirement_lines(VERSIONS.default_torch, ["no-such-package"])


def test_a_list_of_what_is_there_is_read_in_any_form() -> None:
    frozen = "numpy==2.5.2\ntorch==2.11.0\n"
    columns = "Package Version\n------- -------\nnumpy   2.5.2\ntorch   2.11.0\n"
    assert names_in(frozen) == names_in(columns) == names_in("numpy\n\ntorch\n")


def test_more_than_can_be_carried_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wheel").write_bytes(bytes(3 << 20))
    check_size(tmp_path, 60.9)
    with pytest.raises(SetupProblem, match=r"3\.0 MiB, and 61\.1 MiB.*more than 64 MiB"):
        check_size(tmp_path, 61.1)


def test_the_environment_has_what_its_python_has_beneath(tmp_path: Path) -> None:
    carried = tmp_path / "carried"
    made = make_environment(carried, filled(carried), tmp_path / "work")
    code = "import sys, packaging; print(sys.prefix, packaging.__file__)"
    told = subprocess.run([made.python, "-c", code], capture_output=True, text=True, check=True)
    prefix, beneath = told.stdout.split()
    assert Path(prefix) == made.folder and not beneath.startswith(prefix)
    assert made.environ({"PATH": "/bin"})["PATH"].split(":")[0] == str(made.folder / "bin")
    (made.folder / "kept").touch()
    make_environment(carried, read_carried(carried), tmp_path / "work")
    assert (made.folder / "kept").exists(), "it was made anew"


def test_wheels_of_another_python_are_refused(tmp_path: Path) -> None:
    manifest = Manifest("3.99", "2.14.1", "horovod", {})
    with pytest.raises(SetupProblem, match=r"wheels for Python 3\.99.*pack with --python"):
        make_environment(tmp_path, manifest, tmp_path / "work")


def test_the_build_finds_libraries_by_names_that_packages_lack(tmp_path: Path) -> None:
    package, made = tmp_path / "package", tmp_path / "made"
    for name in ("include/nccl.h", "lib/libnccl.so.2", "lib/libcudart.so.13", "bin/nvcc"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(name, encoding="utf-8")
    made.mkdir()
    nccl = linked_nccl(package, made / "nccl")
    assert (nccl / "lib/libnccl.so").read_text(encoding="utf-8") == "lib/libnccl.so.2"
    toolkit = linked_toolkit(package, made / "cuda")
    assert (toolkit / "lib64/libcudart.so").exists() and (toolkit / "bin/nvcc").exists()
    assert sorted(path.name for path in (package / "lib").iterdir()) == [
        "libcudart.so.13",
        "libnccl.so.2",
    ], "nothing of the machine is changed"
    (package / "lib64").mkdir()
    assert linked_toolkit(package, made / "again") == package
    with pytest.raises(SetupProblem, match=r"include/nccl\.h"):
        linked_nccl(package / "lib", made / "none")


def test_a_horovod_without_mpi_is_asked_for_without_it(tmp_path: Path) -> None:
    plan = Plan(None, "2.11.0", "13.0", "90", "", None, tmp_path, "13.0", tmp_path / "nccl")
    variables = build_environ(plan, tmp_path, tmp_path, {"PATH": "/bin"}, 12)
    assert variables["HOROVOD_WITHOUT_MPI"] == "1" and "HOROVOD_WITH_MPI" not in variables
    assert variables["HOROVOD_NCCL_HOME"] == str(tmp_path / "nccl")
