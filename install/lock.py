"""The lock files: every package of a PyTorch pair with the SHA-256 of its files.

A package index, or whoever stands between it and us, can then serve no other file than the one
that this project was made with. An index that builds its packages itself serves others:
``MEGDET_HASHES=no`` turns the check off, and leaves the versions.
"""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from install.console import say
from install.files import sha256
from install.packages import Installer, get_uv
from install.pins import (
    VERSIONS_FILE,
    TorchPair,
    Versions,
    build_requirements,
    constraints,
    docs_requirements,
    read_versions,
    run_requirements,
)
from install.problem import SetupProblem
from install.settings import Places, wants_hashes

LOCKS = Path(__file__).with_name("lock")
DOCS_LOCK = LOCKS / "docs.txt"
_OLDEST_PYTHON = "3.11"


@dataclass(frozen=True)
class Locked:
    """One package of a lock file."""

    requirement: str
    """``name==version``, and where it applies."""
    hashes: tuple[str, ...]
    """SHA-256 of each of its files, in hexadecimal."""

    @property
    def name(self) -> str:
        """As it is written in the lock."""
        return self.requirement.partition("==")[0]

    def lines(self) -> list[str]:
        """As pip and uv read it."""
        return [" ".join([self.requirement, *(f"--hash=sha256:{one}" for one in self.hashes)])]


def lock_file(torch: str) -> Path:
    """The lock of the pair of that torch version."""
    return LOCKS / f"torch-{torch}.txt"


def read_lock(text: str) -> list[Locked]:
    """Parse a lock file, as uv writes it."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        requirement, *hashes = (part.strip() for part in line.split("--hash=sha256:"))
        if requirement and not requirement.startswith("#"):
            found.append(Locked(requirement, tuple(hashes)))
    return found


def constraints_of(
    versions: Versions, pair: TorchPair | None, environ: Mapping[str, str]
) -> list[str]:
    """What may be installed: the pair's lock; versions alone for a site's PyTorch."""
    if pair is None or not wants_hashes(environ):
        return constraints(versions, pair)
    locked = read_lock(lock_file(pair.torch).read_text(encoding="utf-8"))
    return [line for package in locked for line in package.lines()]


def hashed(requirement: str, environ: Mapping[str, str]) -> list[str]:
    """A ``name==version`` with the hashes that any lock has of it, as lines for pip.

    Raises:
        SetupProblem: no lock has that version.
    """
    if not wants_hashes(environ):
        return [requirement]
    for file in sorted(LOCKS.glob("*.txt")):
        for package in read_lock(file.read_text(encoding="utf-8")):
            if package.requirement.partition(";")[0].strip() == requirement:
                return package.lines()
    raise SetupProblem(f"{requirement} is in none of the lock files in {LOCKS}: make lock")


def check_files(files: Iterable[Path], also: Iterable[str]) -> None:
    """See that each file is one that a lock knows, or has one of the hashes ``also``.

    Raises:
        SetupProblem: names the files that don't.
    """
    known = set(also)
    for lock in LOCKS.glob("*.txt"):
        for package in read_lock(lock.read_text(encoding="utf-8")):
            known.update(package.hashes)
    strange = [file.name for file in files if sha256(file) not in known]
    if strange:
        raise SetupProblem(
            f"no lock file knows {', '.join(strange[:5])}"
            f"{f' and {len(strange) - 5} more' if len(strange) > 5 else ''}: the package index "
            "serves other files than this project was made with. Remove them; where your index "
            "builds its packages itself, set MEGDET_HASHES=no"
        )


def make_locks(places: Places, environ: Mapping[str, str]) -> None:
    """Write every pair's lock and that of the pages anew, from ``versions.toml`` and the index."""
    versions = read_versions(VERSIONS_FILE.read_text(encoding="utf-8"))
    installer = Installer(get_uv(versions.uv, places, environ), places, environ)
    for pair in versions.pairs.values():
        wanted = {
            *run_requirements(versions, pair, site_mpi=False),
            *build_requirements(
                versions, pair, site_mpi=False, packaged_cuda=bool(pair.cuda_compiler)
            ),
            f"uv=={versions.uv}",
        }
        _write(lock_file(pair.torch), wanted, constraints(versions, pair), installer, places)
    lock_docs(installer, places)


def lock_docs(installer: Installer, places: Places) -> None:
    """Write the lock of what builds the pages anew."""
    text = VERSIONS_FILE.read_text(encoding="utf-8")
    wanted = docs_requirements(text)
    # What the pages share with the environment has its version.
    shared = constraints(read_versions(text), None)
    _write(DOCS_LOCK, wanted, shared, installer, places)


def _write(
    place: Path,
    wanted: Iterable[str],
    constraints: list[str],
    installer: Installer,
    places: Places,
) -> None:
    place.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=places.cache, prefix="lock-") as scratch:
        made = Path(scratch) / place.name
        log = places.cache / "logs" / "lock.log"
        installer.lock(sorted(wanted), constraints, made, _OLDEST_PYTHON, log)
        place.write_text(made.read_text(encoding="utf-8"), encoding="utf-8")
    count = len(read_lock(place.read_text(encoding="utf-8")))
    say(f"{place} holds {count} packages")
