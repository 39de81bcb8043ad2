"""``python -m megdet_hvd.init FOLDER``: lay out configurations and Slurm templates in a folder.

An installed package carries them along; in a checkout they lie where they are used already.
"""

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import megdet_hvd
from megdet_hvd.command import leave, name_of
from megdet_hvd.errors import StorageError, UserError
from megdet_hvd.job_folder import PATTERNS, carried
from megdet_hvd.storage import as_storage_error
from megdet_hvd.version import add_version_option
from megdet_hvd.wording import first_of

ENVIRONMENT = ".venv"
"""Where jobs look for the environment: slurm/job.sh."""
_NAMED = 4


@dataclass(frozen=True)
class LaidOut:
    """What became of a folder."""

    written: tuple[Path, ...]
    """Relative to it."""
    kept: tuple[Path, ...]
    """There already, and the same."""


def main(argv: Sequence[str] | None = None) -> int:
    """Lay out, say what to do next; 0, 2 for a folder that can't be used, 6: storage fails."""
    parser = argparse.ArgumentParser(
        prog=name_of("megdet_hvd.init"),
        description="Lay out what the package has of configurations (configs/) and Slurm "
        "templates (slurm/) in a folder, from which jobs are submitted then. Nothing that is "
        "there and differs is overwritten.",
        allow_abbrev=False,
    )
    add_version_option(parser)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="made where it is not there")
    folder: Path = parser.parse_args(argv).folder.expanduser()
    try:
        done = lay_out(carried(), folder)
        linked, note = link_environment(folder, Path(sys.prefix))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        known = as_storage_error(error)
        if isinstance(known, StorageError):
            print(f"error: {known}", file=sys.stderr)
            return 6
        print(f"error: {folder} can't be written: {error}", file=sys.stderr)
        return 2
    print("\n".join([*_told(done, folder), *linked, *note, *_next(folder)]))
    return 0


def names_in(source: Path) -> list[Path]:
    """The files that ``source`` has of ours, relative to it, in order."""
    return sorted(file.relative_to(source) for one in PATTERNS for file in source.glob(one))


def lay_out(source: Path, folder: Path) -> LaidOut:
    """Copy the files of :data:`~megdet_hvd.job_folder.PATTERNS`, all or none of them.

    Raises:
        UserError: files are there that differ, or something is no folder; nothing was written.
        OSError: the folder can't be written.
    """
    names = names_in(source)
    if not names:
        raise UserError(
            f"{source} has no configurations: the package was built or copied without them; "
            "install it from its wheel or sdist"
        )
    for place in {folder, *(folder / name.parent for name in names)}:
        if place.exists() and not place.is_dir():
            raise UserError(f"{place} is a file, and has to be a folder; name another one")
    there = [name for name in names if os.path.lexists(folder / name)]
    differ = [name for name in there if not _same(source / name, folder / name)]
    if differ:
        raise UserError(
            f"{folder}: {first_of(differ, _NAMED)} "
            f"{'differs' if len(differ) == 1 else 'differ'} from what megdet_hvd "
            f"{megdet_hvd.__version__} has, and nothing was written: take another folder, or "
            "move them away"
        )
    written = [name for name in names if name not in there]
    begun = []
    try:
        for name in written:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            begun.append(folder / name)
            shutil.copyfile(source / name, folder / name)
    except OSError:
        for file in begun:  # half a file would differ the next time
            file.unlink(missing_ok=True)
        raise
    return LaidOut(tuple(written), tuple(there))


def link_environment(folder: Path, prefix: Path) -> tuple[list[str], list[str]]:
    """Let jobs of the folder find the environment that this Python is of.

    Args:
        folder: where it has to be :data:`ENVIRONMENT`.
        prefix: ``sys.prefix``.

    Returns:
        What was done, and what to know, as lines.
    """
    link = folder / ENVIRONMENT
    if os.path.lexists(link):
        if link.exists() and link.samefile(prefix):
            return [], []
        return [], [
            f"note: {link} is there, and no way to {prefix}, which this ran in: jobs take the "
            "former, or what MEGDET_VENV names"
        ]
    if not os.access(prefix / "bin" / "python", os.X_OK):
        return [], [
            f"note: {prefix} has no bin/python, so jobs find no environment here: ln -s "
            f"/path/to/environment {shlex.quote(str(link))}, or set MEGDET_VENV"
        ]
    link.symlink_to(prefix.absolute())
    return [f"wrote {link} -> {prefix}, the environment of its jobs"], []


def _same(mine: Path, theirs: Path) -> bool:
    return theirs.is_file() and mine.read_bytes() == theirs.read_bytes()


def _count(names: Iterable[Path]) -> str:
    parts = [name.parts[0] for name in names]
    counts = (f"{parts.count(part)} in {part}/" for part in sorted(set(parts)))
    return ", ".join(counts)


def _told(done: LaidOut, folder: Path) -> list[str]:
    lines = []
    if done.written:
        lines.append(f"wrote {folder}: {_count(done.written)}")
    if done.kept:
        lines.append(f"there already, and the same: {_count(done.kept)}")
    return lines


def _next(folder: Path) -> list[str]:
    train, submit = name_of("megdet_hvd.train"), name_of("megdet_hvd.submit")
    return [
        "",
        "next:",
        f"  cd {shlex.quote(str(folder))}",
        f"  horovodrun -np 2 {train} --config configs/scenes.yaml",
        "on a cluster, once slurm/site.sh has your site's facts:",
        "  cp slurm/site.example.sh slurm/site.sh",
        f"  {submit} --check slurm/megdet_8gpu.sbatch",
    ]


if __name__ == "__main__":
    leave(main)
