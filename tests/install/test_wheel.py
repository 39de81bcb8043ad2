"""The sdist, the wheel that is built of it, and what an environment has where it is installed.

Torch and Horovod come from the environment that the tests run in; nothing is fetched.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from megdet_hvd.command import SCRIPTS
from megdet_hvd.init import names_in
from megdet_hvd.job_folder import carried

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.launch
LEFT_OUT = (".git", ".venv", "__pycache__", "runs", "build", "dist", "*.egg-info", ".*_cache")
BUILD = "from setuptools import build_meta as b; import sys; getattr(b, sys.argv[1])(sys.argv[2])"
SLURM = """#!{python}
import json, os, subprocess, sys
call = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
with open({calls!r}, "a") as file:
    print(json.dumps(call), file=file)
if call[0] == "sbatch":
    print("sbatch: Job 12 to start at 2026-03-01T10:00:00 on nodes n1", file=sys.stderr)
elif "--mpi=list" in call:
    print("MPI plugin types are...\\n\\tpmix")
elif call[0] == "srun" and "-c" not in call:  # all but the try whether MPI starts
    task = dict(SLURM_PROCID="0", SLURM_LOCALID="0", SLURM_NODEID="0", SLURM_STEP_ID="0")
    words = call[next(i for i, word in enumerate(call) if word.endswith("/python")):]
    sys.exit(subprocess.run(words, env=dict(os.environ, **task)).returncode)
"""


@dataclass(frozen=True)
class Fresh:
    """An environment with the wheel in it."""

    folder: Path
    sdist: Path
    wheel: Path

    @property
    def bin(self) -> Path:
        """Its programs."""
        return self.folder / "env" / "bin"

    def run(
        self, *words: object, cwd: Path | None = None, **more: str
    ) -> "subprocess.CompletedProcess[str]":
        """A command of it, away from the project; ``more``: variables."""
        environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MEGDET_", "SLURM_", "PYTHON", "OPAL_"))
        }
        own = Path(sys.executable).parent  # for horovodrun, and where mpi4py looks for MPI
        environ["PATH"] = f"{self.bin}:{own}:{environ['PATH']}"
        environ["LD_LIBRARY_PATH"] = f"{own.parent / 'lib'}"
        return subprocess.run(
            [str(word) for word in words],
            cwd=cwd or self.folder,
            env={**environ, **more},
            capture_output=True,
            text=True,
            timeout=120,
        )


def built(folder: Path, kind: str, out: Path) -> Path:
    """``folder`` made into a sdist or wheel, by the build backend that pip would call."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{kind}", str(out)],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (file,) = out.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return file


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    folder = tmp_path_factory.mktemp("fresh é")
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (tree / "slurm" / "site.sh").write_text("SITE_ACCOUNT=mine\n")
    sdist = built(tree, "sdist", folder / "dist")
    with tarfile.open(sdist) as tar:
        tar.extractall(folder / "unpacked", filter="data")
    shutil.rmtree(tree)
    (unpacked,) = (folder / "unpacked").iterdir()
    wheel = built(unpacked, "wheel", folder / "dist")
    venv.create(folder / "env", symlinks=True)
    site_packages = folder / "env" / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
    own = Path(sysconfig.get_path("purelib"))
    (site_packages / "packages.pth").write_text(f"{own}\n", encoding="utf-8")
    for line in own.glob("megdet_open_mpi.pth"):  # Open MPI's place; in .pth files of folders
        text = line.read_text(encoding="utf-8")  # that a .pth file names, Python does not look
        at = text.replace("sys.prefix", repr(sys.prefix))
        (site_packages / line.name).write_text(at, encoding="utf-8")
    made = Fresh(folder, sdist, wheel)
    options = ["--no-index", "--no-deps", "--no-compile", "--ignore-installed", "-q"]
    pip = [sys.executable, "-m", "pip", "--python", made.bin / "python", "install", *options]
    done = made.run(*pip, wheel)
    assert done.returncode == 0, done.stderr
    return made


def test_what_is_in_it(fresh: Fresh) -> None:
    """All files that the package's folder has, those that are laid out, and no site file."""
    with zipfile.ZipFile(fresh.wheel) as wheel:
        names = {*wheel.namelist()}
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        told = wheel.read(metadata).decode()
    info = metadata.rpartition("/")[0]
    package = {
        f"megdet_hvd/{file.relative_to(ROOT / 'megdet_hvd')}"
        for file in (ROOT / "megdet_hvd").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    laid_out = {f"megdet_hvd/project/{name}" for name in names_in(ROOT)}
    assert "megdet_hvd/py.typed" in package and len(laid_out) == 15
    assert {name for name in names if not name.startswith(info)} == package | laid_out
    assert f"{info}/licenses/LICENSE" in names
    assert "Requires-Dist: horovod>=" in told and "Description-Content-Type: text/markdown" in told
    with tarfile.open(fresh.sdist) as tar:
        parts = {member.name.partition("/")[2] for member in tar.getmembers() if member.isfile()}
    assert {"install/setup", "install/versions.toml", "Makefile", "tests/ranks.py"} <= parts
    assert "slurm/environment.sbatch" in parts and "slurm/site.sh" not in parts


def test_commands(fresh: Fresh) -> None:
    """From the installed package, not from the project, and with their programs' exit codes."""
    where = fresh.run("python", "-c", "import megdet_hvd; print(megdet_hvd.__file__)")
    assert where.stdout.startswith(f"{fresh.folder}/env/lib/"), where.stderr
    assert {script.name for script in fresh.bin.glob("megdet-*")} == {*SCRIPTS}
    assert fresh.run("megdet-train", "--version").stdout.startswith("megdet_hvd ")
    helped = fresh.run("megdet-train", "--help")
    assert helped.stdout.startswith("usage: megdet-train ")
    wrong = fresh.run("megdet-train", "global_batches=3")
    assert wrong.returncode == 2 and "nearest: global_batch" in wrong.stderr, wrong.stderr
    head = fresh.run("bash", "-c", "megdet-data check --help | head -1; echo ${PIPESTATUS[0]}")
    assert head.stderr == "" and head.stdout.splitlines()[-1] in ("0", "141")
    assert head.stdout.startswith("usage: megdet-data check")
    ranks = fresh.run("horovodrun", "-np", "2", "megdet-placement")
    assert "rank 0 of 2" in ranks.stdout and "rank 1 of 2" in ranks.stdout, ranks.stdout


def test_jobs_from_a_folder_that_is_laid_out(fresh: Fresh) -> None:
    """Checked as on a login node, and run as Slurm runs it, with scripts for Slurm's programs."""
    jobs, tools, calls = fresh.folder / "my jobs", fresh.folder / "tools", fresh.folder / "calls"
    done = fresh.run("megdet-init", jobs)
    assert done.returncode == 0, done.stderr
    assert "megdet-submit --check slurm/megdet_8gpu.sbatch" in done.stdout
    assert names_in(jobs) == names_in(carried()) and (jobs / ".venv" / "bin" / "python").exists()
    tools.mkdir()
    for name in ("sbatch", "srun", "squeue", "scontrol", "sacct"):
        (tools / name).write_text(SLURM.format(python=sys.executable, calls=str(calls)))
        (tools / name).chmod(0o755)
    variables = {"PATH": f"{tools}:{fresh.bin}:/usr/bin:/bin"}
    words = ("slurm/megdet_8gpu.sbatch", "--config", "configs/scenes.yaml", "device=cpu")
    own = ("--ntasks-per-node=1", "--nodes=1")
    checked = fresh.run("megdet-submit", "--check", *own, *words, cwd=jobs, **variables)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"would run: env 'MEGDET_ROOT={jobs}' sbatch" in checked.stdout
    assert f"environment: {jobs}/.venv (torch " in checked.stdout
    assert "not made by make setup" in checked.stdout and "differs from" not in checked.stdout
    job = {"SLURM_JOB_ID": "47", "SLURM_JOB_NAME": "megdet_8gpu", "SLURM_SUBMIT_DIR": str(jobs)}
    job |= {"SLURM_JOB_NODELIST": "n1", "SLURM_JOB_NUM_NODES": "1", "SLURM_TASKS_PER_NODE": "1"}
    job |= {"SLURM_NTASKS_PER_NODE": "1", "SLURM_NTASKS": "1", "SLURM_NNODES": "1"}
    site = jobs / "slurm" / "site.sh"
    site.write_text("SITE_LAUNCHER=srun\nSITE_BIND=none\nSITE_REQUEUE_ON_FAILURE=0\n")
    ran = fresh.run("bash", *words, "--placement", cwd=jobs, **variables, **job)
    shown = ran.stdout + ran.stderr
    assert ran.returncode == 0, shown
    assert re.search(r"^rank 0 of 1 on ", shown, re.MULTILINE), shown
    assert "the program has finished" in shown
    started = [json.loads(line) for line in calls.read_text().splitlines()]
    python = str(jobs / ".venv" / "bin" / "python")
    assert any(python in call and "megdet_hvd.placement" in call for call in started)
    (jobs / ".venv").unlink()
    none = fresh.run("bash", *words, cwd=jobs, **variables, **job)
    assert none.returncode == 2 and f"ln -s /path/to/environment {jobs}/.venv" in none.stderr


@pytest.mark.tail
def test_training_from_the_wheel(fresh: Fresh) -> None:
    """Two ranks of the console script, under horovodrun."""
    from tests.engine.small import SETTINGS

    own = ("learning.max_iterations=2", "name=mine", f"data.scenes.cache={fresh.folder / 'scenes'}")
    words = ("megdet-train", *SETTINGS, *own)
    done = fresh.run("horovodrun", "-np", "2", *words, OMPI_MCA_mpi_yield_when_idle="1")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = (fresh.folder / "runs" / "mine" / "metrics.jsonl").read_text().splitlines()
    assert any(json.loads(line).get("iteration") == 2 for line in lines), lines


@pytest.mark.tail
def test_an_sdist_installs_and_its_requirements_are_met(fresh: Fresh) -> None:
    """As ``pip install`` does it, with setuptools from the environment."""
    options = ["--no-index", "--no-build-isolation", "--force-reinstall", "--no-deps", "-q"]
    pip = [sys.executable, "-m", "pip", "--python", fresh.bin / "python"]
    done = fresh.run(*pip, "install", *options, fresh.sdist)
    assert done.returncode == 0, done.stderr
    assert fresh.run("megdet-submit", "--version").returncode == 0
    told = fresh.run(*pip, "check").stdout
    assert "megdet" not in told, told
