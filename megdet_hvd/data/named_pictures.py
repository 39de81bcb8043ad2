"""Pictures as a command line names them: files, folders, patterns."""

import glob
import re
from collections.abc import Iterable
from pathlib import Path

from megdet_hvd.errors import StorageError, UserError
from megdet_hvd.storage import cannot_read, retried

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
    *(".gif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".avif"),
)
"""What counts as a picture in a folder; a file that is named may have any name."""

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


def named_pictures(
    words: Iterable[str],
) -> tuple[list[Path], list[UserError | StorageError]]:
    """The picture files meant, in order, and what is wrong with other words.

    A folder stands for the pictures in it (not for those in its folders), a pattern with ``*``,
    ``?`` or ``[`` that is no file's name for what it matches; ``**`` passes through folders.
    """
    found: list[Path] = []
    problems: list[UserError | StorageError] = []
    for word in words:
        try:
            found += _meant(word)
        except (UserError, StorageError) as error:
            problems.append(error)
    return list(dict.fromkeys(found)), problems


def _meant(word: str) -> list[Path]:
    address = _ADDRESS.match(word)
    if address is not None:
        tool = "curl -O" if address[1].startswith("http") else "its own tool"
        raise UserError(
            f"{word}: is an address, and pictures are read from files; fetch it first ({tool}) and "
            "name the file"
        )
    path = Path(word).expanduser()
    try:
        if retried(path.is_dir):
            return retried(lambda: _in_folder(path))
    except OSError as error:
        raise cannot_read(word, error) from error
    if path.exists() or not glob.has_magic(word):
        return [path]
    names = sorted(glob.glob(str(path), recursive=True))
    matches = [Path(name) for name in names if not Path(name).is_dir()]
    if not matches:
        raise UserError(f"{word}: no file fits this pattern")
    return matches


def _in_folder(folder: Path) -> list[Path]:
    shown = [p for p in folder.iterdir() if not p.name.startswith(".")]  # a Mac's ._a.jpg is none
    pictures = sorted(p for p in shown if p.suffix.lower() in SUFFIXES and p.is_file())
    if pictures:
        return pictures
    below = next((p for p in sorted(shown) if p.is_dir()), None)
    hint = "" if below is None else f"; for those in its folders, '{folder}/**/*{SUFFIXES[0]}'"
    raise UserError(f"{folder}: this folder holds no pictures ({', '.join(SUFFIXES)}){hint}")
