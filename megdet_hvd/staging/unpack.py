"""An archive unpacked as it is read, so that it needs its room only once."""

from __future__ import annotations

import os
import shutil
import tarfile
import zlib
from pathlib import Path

from megdet_hvd.errors import UserError
from megdet_hvd.staging.place import missing
from megdet_hvd.staging.source import StagingSource


def unpack(source: StagingSource, place: Path) -> dict[str, int]:
    """Unpack into ``place``, from nothing.

    gzip's checksum is compared on the way; of a plain archive every size is, which finds one
    that was cut off.

    Returns:
        The size of every file, by path.

    Raises:
        UserError: the archive is damaged, or would write outside ``place``.
        OSError: reading or writing failed.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    files: dict[str, int] = {}
    try:
        with tarfile.open(source.path, "r|*", bufsize=1 << 20) as tar:
            for member in tar:
                _check(member, source.path)
                _check_links(member, place, source.path)
                _extract(tar, member, place)
                if member.isreg():
                    files[os.path.normpath(member.name)] = member.size
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(
            f"{source.path}: this archive is damaged ({error}); make it again"
        ) from None
    lost = missing(place, files)
    if lost or not files:
        what = f"{lost[0]} in it is cut off" if lost else "nothing is in it"
        raise UserError(f"{source.path}: this archive is damaged ({what}); make it again")
    return files


def only_folder(place: Path) -> Path:
    """The one folder that an archive held, where it held nothing beside; else ``place``."""
    inside = [path for path in place.iterdir() if not path.name.startswith(".megdet")]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else place


def _check(member: tarfile.TarInfo, archive: Path) -> None:
    parts = Path(member.name).parts
    outside = member.name.startswith("/") or ".." in parts
    if member.islnk():
        outside = outside or member.linkname.startswith("/") or ".." in Path(member.linkname).parts
    if outside or member.isdev():
        raise UserError(
            f"{archive}: holds {member.name!r}, which does not belong into a folder of its own; "
            "make it with tar -C FOLDER -cf ARCHIVE ."
        )


def _check_links(member: tarfile.TarInfo, place: Path, archive: Path) -> None:
    """Refuse what would be written, or linked to, through a link that leads out of ``place``.

    A link to elsewhere may lie there (an environment's python is one), but nothing goes through it.
    """
    inside = os.path.realpath(place)
    folder, name = os.path.split(os.path.join(inside, os.path.normpath(member.name)))
    ways = [os.path.realpath(folder)]
    target = os.path.join(folder, name)
    if os.path.islink(target) and not member.issym():
        ways.append(os.path.realpath(target))
    if member.islnk():
        ways.append(os.path.realpath(os.path.join(inside, member.linkname)))
    for way in ways:
        if way != inside and not way.startswith(inside + os.sep):
            raise UserError(
                f"{archive}: holds {member.name!r}, whose way leads through a link to {way}; "
                "nothing is written there. Make the archive anew from a folder of its own"
            )


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    if hasattr(tarfile, "tar_filter"):
        tar.extract(member, place, filter="tar")
    else:  # before Python 3.9.17, 3.10.12 and 3.11.4
        tar.extract(member, place)
