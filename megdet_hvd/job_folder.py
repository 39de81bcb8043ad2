"""The folder that jobs run in, with configs/ and slurm/: a checkout, or one of ``megdet-init``.

Paths in, paths out: nothing is imported or read but whether a file is there.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import megdet_hvd

MARK = Path("slurm", "job.sh")
"""What makes a folder one: every template reads it."""
PATTERNS = ("configs/*.yaml", "slurm/megdet_*gpu.sbatch", "slurm/job.sh", "slurm/site.example.sh")
"""The files that an installed package carries along, and ``megdet-init`` lays out."""
_PACKAGE = Path(megdet_hvd.__file__).resolve().parent


def checkout(package: Path = _PACKAGE) -> Path | None:
    """The project's folder where the package lies in it; None: the package is installed."""
    return package.parent if (package.parent / MARK).is_file() else None


def carried(package: Path = _PACKAGE) -> Path:
    """The folder with the package's own files of :data:`PATTERNS`: in a wheel, or a checkout."""
    return checkout(package) or package / "project"


def find_job_folder(
    template: Path | None, here: Path, environ: Mapping[str, str], package: Path = _PACKAGE
) -> Path | None:
    """The folder that a job of this template runs in.

    Args:
        template: a template's path, absolute or from ``here``; None: there is none.
        here: the folder of the shell.
        environ: the shell's variables.
        package: where this package lies.

    Returns:
        The first of: the folder that the template lies in, or one above it; that of the shell, or
        one above it; ``MEGDET_ROOT``; the checkout that this package lies in. None: none of them
        has a ``slurm/job.sh``.
    """
    places: list[Path] = []
    if template is not None and (here / template).is_file():
        places += _up(here / template)
    places += [here, *_up(here)]
    if environ.get("MEGDET_ROOT"):
        places.append(here / Path(environ["MEGDET_ROOT"]).expanduser())
    own = checkout(package)
    return next((place for place in places if (place / MARK).is_file()), own)


def _up(path: Path) -> Iterator[Path]:
    yield from path.absolute().parents
