"""Zip archives unpacked so that an interruption costs nothing and leaves no half file."""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from megdet_hvd.errors import UserError


def unpack(
    archive: Path, folder: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> int:
    """Unpack into ``folder``; files already there with the right size stay as they are.

    Each file's CRC is checked on the way, and it takes its name only when whole.

    Returns:
        The number of files in the archive.

    Raises:
        UserError: the archive is damaged, or would write outside ``folder``.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            for done, member in enumerate(members, start=1):
                _extract(opened, member, folder)
                progress(done, len(members))
            return len(members)
    except zipfile.BadZipFile as error:
        raise UserError(f"{archive} is damaged: {error}; delete it and fetch it again") from None
    except OSError as error:  # a full disk, a name that is too long
        reason = error.strerror or str(error)
        raise UserError(
            f"{archive} can't be unpacked into {folder} ({reason}): {error.filename or archive}; "
            "what is complete stays, and the same command carries on"
        ) from None


def _extract(opened: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    target = folder / member.filename
    if not target.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{opened.filename} holds {member.filename!r}, which lies outside {folder}")
    kept = target.name.startswith(".") or target.name.endswith((".zip", ".part"))
    if kept and target.parent.resolve() == folder.resolve():  # where archives and marks lie
        raise UserError(
            f"{opened.filename} holds {member.filename!r}, a name that is kept for downloads"
        )
    if target.is_file() and target.stat().st_size == member.file_size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with opened.open(member) as source, part.open("wb") as sink:
        shutil.copyfileobj(source, sink)
    os.replace(part, target)
