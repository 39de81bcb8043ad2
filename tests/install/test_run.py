"""``install/run``: what another Python, or another MPI, has left in the shell."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def variables(venv: Path, **more: str) -> dict[str, str]:
    """Those of a command that is run inside an environment."""
    done = subprocess.run(
        ["sh", "install/run", "env", "-0"],
        env={"PATH": os.environ["PATH"], "MEGDET_VENV": str(venv), **more},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if line)


def test_another_pythons_home_is_left_out(tmp_path: Path) -> None:
    found = variables(tmp_path, PYTHONHOME="/opt/python", PYTHONPATH="/mine", X="a b")
    assert "PYTHONHOME" not in found
    assert (found["PYTHONPATH"], found["X"], found["VIRTUAL_ENV"]) == (
        "/mine",
        "a b",
        str(tmp_path),
    )


def test_another_mpi_is_left_out_where_the_environment_has_its_own(tmp_path: Path) -> None:
    other, cuda = tmp_path / "hpc x", tmp_path / "cuda"
    for folder, library in ((other, "libmpi.so.40"), (cuda, "libcudart.so")):
        folder.mkdir()
        (folder / library).touch()
    shell = {"OPAL_PREFIX": "/opt/hpcx", "LD_LIBRARY_PATH": f"{other}:{cuda}"}
    found = variables(tmp_path, **shell)
    assert {name: found[name] for name in shell} == shell, "its MPI may be this very one"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "orted").touch()
    (tmp_path / "bin" / "orted").chmod(0o755)
    found = variables(tmp_path, **shell)
    assert "OPAL_PREFIX" not in found and found["LD_LIBRARY_PATH"] == str(cuda)
    assert "LD_LIBRARY_PATH" not in variables(tmp_path)


def test_without_an_environment_it_names_make_setup(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "install/run", "no-such-program"],
        env={"PATH": os.environ["PATH"], "MEGDET_VENV": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, "make setup" in done.stderr) == (127, True), done.stderr
