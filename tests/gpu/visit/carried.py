"""The folder that is carried to a machine without network: what it holds, and that it is whole."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from install.files import read_json, sha256, write_json
from install.problem import SetupProblem

MANIFEST = "carried.json"
WHEELS = "wheels"
MIB = 2**20


@dataclass(frozen=True)
class Manifest:
    """What ``pack`` has filled it with."""

    python: str
    """``3.12``: the wheels are for that Python."""
    torch: str
    """Whose lock file the versions are from."""
    horovod: str
    """Name of the archive with Horovod's edited sources."""
    files: Mapping[str, str]
    """SHA-256 by name, relative to the folder."""


def write_manifest(folder: Path, python: str, torch: str, horovod: str) -> Manifest:
    """Of all that is in ``folder``."""
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    files = {str(file.relative_to(folder)): sha256(file) for file in found if file.name != MANIFEST}
    manifest = Manifest(python, torch, horovod, files)
    write_json(folder / MANIFEST, asdict(manifest))
    return manifest


def read_carried(folder: Path) -> Manifest:
    """What it holds.

    Raises:
        SetupProblem: it is no such folder, or a file is missing, or another one.
    """
    found = read_json(folder / MANIFEST)
    if found is None:
        raise SetupProblem(
            f"{folder} holds no {MANIFEST}: name the folder that "
            "`python -m tests.gpu.visit pack FOLDER` has filled"
        )
    manifest = Manifest(**found)
    for name, wanted in manifest.files.items():
        file = folder / name
        if not file.is_file() or sha256(file) != wanted:
            raise SetupProblem(
                f"{file} is {'another file' if file.is_file() else 'missing'}: it was damaged on "
                "its way; carry the folder anew"
            )
    return manifest


def size_mib(folder: Path) -> float:
    """Of all its files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / MIB
