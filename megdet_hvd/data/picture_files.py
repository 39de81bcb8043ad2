"""The file that an annotation's ``file_name`` means, also where it is not spelt the same.

Names come from other systems: with backslashes, escapes (%20), another case, another Unicode form
(a Mac's é is two signs), a web address, a whole path of another machine, or the folder's own name
in front. Each folder is listed once instead of asking for each file: one request per folder
instead of 118,287 for COCO, which matters on a shared file system.
"""

import errno
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from megdet_hvd.data.stamps import FolderSeen, Stamp, folder_stamp
from megdet_hvd.storage import cannot_read, is_transient, retried

_THREADS = 8
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


@dataclass
class _Listing:
    """The names in one folder."""

    names: set[str]
    linked: bool = False
    """Whether there are links among them, which may lead elsewhere without a trace here."""
    folded: dict[str, list[str]] = field(default_factory=dict)
    """Names by their folded form; made when first needed."""

    def alike(self, name: str) -> str | None:
        """The one name that differs from ``name`` in case or Unicode form only."""
        if name in self.names:
            return name
        if not self.folded:
            for own in self.names:
                self.folded.setdefault(_fold(own), []).append(own)
        found = self.folded.get(_fold(name), [])
        return found[0] if len(found) == 1 else None


class PictureFolder:
    """Looks names up in a folder and the folders below it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listings: dict[str, _Listing | None] = {}
        self._stamps: dict[str, Stamp | None] = {}

    @property
    def seen(self) -> dict[str, FolderSeen]:
        """Of each folder that was listed so far, below this one."""
        return {below: self.look(below) for below in list(self._listings)}

    def look(self, below: str) -> FolderSeen:
        """What a folder below this one holds; one that can't be listed has no digest.

        Raises:
            StorageError: it can't be listed at the moment.
        """
        listing = self._listing(below)
        if listing is None:
            return self._stamps[below], ""
        names = "\0".join(sorted(listing.names)).encode("utf-8", "surrogateescape")
        return self._stamps[below], hashlib.sha256(names).hexdigest()

    def has(self, name: str) -> bool:
        """Whether a file is there under just this name.

        Raises:
            StorageError: the folder can't be listed at the moment.
        """
        parent, base = os.path.split(str(PurePosixPath(name)))
        listing = self._listing(parent)
        return listing is not None and base in listing.names

    def is_listed(self, name: str) -> bool:
        """Whether the folder that a name lies in can be listed."""
        return self._listing(os.path.split(str(PurePosixPath(name)))[0]) is not None

    def dangling(self, name: str) -> str | None:
        """Where a link of just this name leads, of a name that `has` denies; None: it is none."""
        try:
            return os.readlink(self.folder / name)
        except (OSError, ValueError):
            return None

    def find(self, name: str) -> str | None:
        """The name under which the file of this name is there; None: it is not, or two are."""
        if self.has(name):
            return name
        for candidate in dict.fromkeys(self._spellings(name)):
            found = self._alike(candidate)
            if found is not None:
                return found
        return None

    def below(self, name: str) -> str | None:
        """The folder right below this one that has the file; None: none has."""
        listing = self._listing("")
        for folder in sorted(listing.names) if listing is not None else []:
            if self._alike(f"{folder}/{name}") is not None:
                return folder
        return None

    def other_ending(self, name: str) -> str | None:
        """The one file beside it that differs in what follows the last dot; None: none, or two."""
        parent, base = os.path.split(str(PurePosixPath(name)))
        listing = self._listing(parent)
        stems = {base, PurePosixPath(base).stem}
        found = (
            [own for own in listing.names if PurePosixPath(own).stem in stems] if listing else []
        )
        return os.path.join(parent, found[0]) if len(found) == 1 else None

    def _spellings(self, name: str) -> Iterator[str]:
        yield name
        plain = name.strip()
        # From another machine, or out of another folder that is not here.
        elsewhere = plain.startswith(("/", "\\", "../", "..\\"))
        whole = elsewhere or bool(_ADDRESS.match(plain) or _DRIVE.match(plain))
        if _ADDRESS.match(plain):
            plain = urlsplit(plain).path
        spellings = [plain, unquote(plain)]
        if "?" in plain:  # what was asked of a web server: 1.jpg?width=640
            spellings.append(plain.split("?", 1)[0])
        for spelt in spellings:
            for path in (spelt, spelt.replace("\\", "/")):
                yield path
                parts = [part for part in path.split("/") if part not in ("", ".")]
                # The folder's own name in front: images/a.jpg in …/images.
                for own in range(len(parts) - 1, 0, -1):
                    if self._is_tail(parts[:own], whole):
                        yield "/".join(parts[own:])
                if whole:  # a web address, or another machine's path
                    yield "/".join(parts[-2:])
                    yield parts[-1] if parts else ""

    def _is_tail(self, front: Sequence[str], whole: bool) -> bool:
        own = [_fold(part) for part in self.folder.absolute().parts]
        named = [_fold(part) for part in front]
        return named[-1:] == own[-1:] if whole else named == own[-len(named) :]

    def _alike(self, name: str) -> str | None:
        found = "/" if name.startswith("/") else ""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        for k, part in enumerate(parts):
            own: str | None = part
            if part != "..":
                listing = self._listing(found.rstrip("/") or found)
                own = None if listing is None else listing.alike(part)
            if own is None:
                return None
            found += own if k == len(parts) - 1 else f"{own}/"
        return found if parts and parts[-1] != ".." else None

    def _listing(self, parent: str) -> _Listing | None:
        if parent not in self._listings:
            before = folder_stamp(self.folder / parent)
            listing = self._listings[parent] = _list(self.folder / parent)
            told = not before if listing is None else not listing.linked
            self._stamps[parent] = before if told else None
        return self._listings[parent]


def _list(folder: Path) -> _Listing | None:
    def listing() -> _Listing:
        with os.scandir(folder) as entries:
            links = {entry.name: entry.is_symlink() for entry in entries}
        linked = [name for name, is_link in links.items() if is_link]
        with ThreadPoolExecutor(_THREADS) as pool:
            there = pool.map(lambda name: _leads_somewhere(folder / name), linked)
            gone = {name for name, is_there in zip(linked, there, strict=True) if not is_there}
        return _Listing(links.keys() - gone, bool(linked))

    try:
        return retried(listing)
    except OSError as error:
        if is_transient(error):
            raise cannot_read(folder, error) from error
        return None
    except ValueError:  # no path at all: a zero byte, half a letter
        return None


def _leads_somewhere(link: Path) -> bool:
    """Whether a link leads to anything; those of git-annex don't where the data isn't fetched."""
    try:
        link.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            return False
        if is_transient(error):
            raise
    return True


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
