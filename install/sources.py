"""Horovod's source archive: fetched once, checked, unpacked."""

import shutil
import tarfile
import tempfile
from pathlib import Path

from install.console import run_logged, step
from install.files import sha256
from install.packages import pip_source
from install.pins import Versions
from install.problem import SetupProblem
from install.settings import Places


def get_source(versions: Versions, places: Places, python: Path) -> Path:
    """Path of the source archive in the cache.

    Args:
        versions: the pinned versions.
        places: folders.
        python: a Python with pip and what Horovod's own setup.py imports.
    """
    name = f"horovod-{versions.horovod}.tar.gz"
    place = places.cache / "sources" / name
    if not place.is_file():
        with (
            step(f"fetching Horovod {versions.horovod}'s sources"),
            tempfile.TemporaryDirectory(dir=places.cache, prefix="source-") as scratch,
        ):
            command: list[str | Path] = [
                python,
                "-m",
                "pip",
                "download",
                "--no-binary",
                "horovod",
                "--no-deps",
            ]
            command += ["--no-build-isolation", "--dest", scratch, *pip_source(places)]
            # pip looks at the hash before it runs the archive's setup.py for its metadata.
            wanted = Path(scratch) / "wanted.txt"
            line = f"horovod=={versions.horovod} --hash=sha256:{versions.horovod_sha256}\n"
            wanted.write_text(line, encoding="utf-8")
            run_logged(
                "fetching Horovod's sources",
                [*command, "--require-hashes", "--requirement", wanted],
                places.cache / "logs" / "source.log",
            )
            place.parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / name).replace(place)
    found = sha256(place)
    if found != versions.horovod_sha256:
        place.unlink()
        raise SetupProblem(
            f"{name} has the SHA-256 {found}, not {versions.horovod_sha256} as versions.toml "
            "says. It was removed from the cache; run set-up again, and if that repeats itself, "
            "the package index serves another file than the one this project was made with"
        )
    return place


def unpack_source(archive: Path, folder: Path) -> Path:
    """Unpack into ``folder``; returns the source tree."""
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return next(path for path in folder.iterdir() if path.is_dir())
