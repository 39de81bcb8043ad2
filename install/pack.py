"""``make pack``: the environment as one archive, which nodes unpack onto their own disk.

128 processes that import 5 GB in 25,000 files from a shared file system wait minutes for it; one
file that each node reads once is what such file systems are good at. The archive is not
compressed: libraries hardly shrink, and unpacking would wait for one core.
"""

import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from install.console import say, step, warn
from install.files import read_json
from install.pack_contents import (
    LEFT_OUT,
    canonical,
    distribution_of,
    files_of,
    movable_script,
    packed,
)
from install.pack_python import BasePython, ask_python, copy_python
from install.pins import VERSIONS_FILE, read_versions
from install.problem import SetupProblem
from install.settings import Places

MANIFEST = "megdet_hvd_environment.json"
"""First member of the archive: what it holds."""
OPEN_MPI_HERE = (
    "import os, sys; os.path.exists(sys.prefix + '/bin/orted') and "
    "os.environ.update(OPAL_PREFIX=sys.prefix, PMIX_INSTALL_PREFIX=sys.prefix)\n"
)
"""Open MPI's parts are those beside this Python, also where another copy's mpirun started it and
said otherwise. Both names are needed: with only one of them changed MPI waits for ever."""


def archive_path(places: Places, environ: Mapping[str, str]) -> Path:
    """Where the archive goes: MEGDET_PACK, else ``.venv.tar`` beside the project's files."""
    given = environ.get("MEGDET_PACK", "")
    return places.root / Path(given).expanduser() if given else places.root / ".venv.tar"


def pack(places: Places, environ: Mapping[str, str]) -> None:
    """Write the archive, whole or not at all.

    Raises:
        SetupProblem: there is no finished environment, its torch lies outside it, or the disk is
            too small.
    """
    stamp = read_json(places.stamp)
    if stamp is None or stamp.get("state") != "ready":
        raise SetupProblem(f"{places.venv} is no finished environment: run make setup first")
    if stamp["settings"]["torch"] == "site":
        raise SetupProblem(
            "the site's own PyTorch lies outside the environment, so packing it would gain "
            "nothing: leave SITE_ENVIRONMENT empty in slurm/site.sh"
        )
    place = archive_path(places, environ)
    names = contents(places.venv)
    size = sum((places.venv / name).lstat().st_size for name in names)
    _room(place, size)
    say(f"{len(names)} files, {size / 1e9:.1f} GB, of {places.venv} go into {place}")
    base = ask_python(places.python)
    partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
    try:
        with step("packing"), tempfile.TemporaryDirectory(prefix="megdet-pack-") as scratch:
            python = _movable_python(base, Path(scratch), environ)
            _write(partial, places, names, python, stamp)
        partial.replace(place)
    except OSError as error:
        raise SetupProblem(
            f"{place} can't be written ({error.strerror}); choose another place: "
            "make pack MEGDET_PACK=/path/env.tar"
        ) from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    say(f"ready: {place} ({place.stat().st_size / 1e9:.1f} GB)")


def contents(venv: Path) -> list[str]:
    """What of the environment ranks need; names relative to it."""
    names: list[str] = []
    for folder, folders, files in os.walk(venv):
        inside = Path(folder).relative_to(venv)
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        names += [(inside / name).as_posix() for name in (*files, *links)]
    tools = read_versions(VERSIONS_FILE.read_text(encoding="utf-8")).groups["tools"]
    unwanted = {canonical(name) for name in (*tools, *LEFT_OUT)}
    dropped: set[str] = set()
    for record in venv.glob("lib/python*/site-packages/*.dist-info/RECORD"):
        if distribution_of(record.parent.name) in unwanted:
            site_packages = PurePosixPath(record.parent.parent.relative_to(venv).as_posix())
            dropped |= files_of(record.read_text(encoding="utf-8"), site_packages)
    return packed(names, dropped)


def _room(place: Path, size: int) -> None:
    if not place.parent.is_dir():
        raise SetupProblem(f"{place.parent} is no folder: make it, or choose another MEGDET_PACK")
    free = shutil.disk_usage(place.parent).free
    if free < size * 1.02:
        raise SetupProblem(
            f"{place.parent} has {free / 1e9:.1f} GB left and the archive takes "
            f"{size / 1e9:.1f} GB: choose another place, make pack MEGDET_PACK=/path/env.tar"
        )


def _movable_python(base: BasePython, scratch: Path, environ: Mapping[str, str]) -> Path | None:
    """A folder with a Python to put beside the packages; None: the one below stays in use."""
    if base.of_system:
        say(f"Python itself stays {base.program}, which every node must have")
        return None
    if copy_python(base, scratch, environ):
        return scratch
    warn(f"Python itself stays in {base.prefix}: nodes load it from there, and its library")
    return None


def _write(
    partial: Path, places: Places, names: list[str], python: Path | None, stamp: Mapping[str, Any]
) -> None:
    manifest = {key: stamp.get(key) for key in ("holds", "versions", "settings", "wheel")}
    programs = str(places.venv / "bin")
    with tarfile.open(partial, "w") as tar:
        _add_text(tar, MANIFEST, json.dumps(manifest, sort_keys=True).encode())
        for path, name in _python_files(places.venv, python):
            tar.add(path, name, recursive=False)
        for name in names:
            path = places.venv / name
            if python is not None and name.startswith("bin/python"):
                continue
            if name.endswith("/megdet_open_mpi.pth"):
                _add_text(tar, name, OPEN_MPI_HERE.encode())
                continue
            script = None
            if name.startswith("bin/") and path.is_file() and not path.is_symlink():
                script = movable_script(path.read_bytes(), programs)
            if script is None:
                tar.add(path, name, recursive=False)
            else:
                _add_text(tar, name, script, mode=0o755)


def _python_files(venv: Path, python: Path | None) -> Iterator[tuple[Path, str]]:
    if python is None:
        yield venv / "pyvenv.cfg", "pyvenv.cfg"
        return
    for path in sorted(python.rglob("*")):
        if path.is_symlink() or path.is_file():
            yield path, path.relative_to(python).as_posix()


def _add_text(tar: tarfile.TarFile, name: str, text: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(text), mode
    tar.addfile(member, io.BytesIO(text))
