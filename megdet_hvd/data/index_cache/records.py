"""Small notes beside the indexes, each about what was seen at one time; any may be lost."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from megdet_hvd.data.index_cache.folder import mark_used
from megdet_hvd.data.stamps import FolderSeen, is_settled, stamp_of
from megdet_hvd.storage import temporary_beside

_PIECE = 1 << 20

FoldersSeen = Sequence[Mapping[str, FolderSeen]]
"""Of each picture folder: those below it that were listed, itself as the empty name."""


def digest_of(annotations: Path, folder: Path) -> str:
    """SHA-256 of a file's bytes; of one with the stamp it had when it was read last, as noted then.

    Args:
        annotations: the file. It is opened, for which a network file system asks its server.
        folder: of the notes.

    Raises:
        OSError: the file can't be read.
    """
    with annotations.open("rb") as file:
        before = os.fstat(file.fileno())
        # Machines that share this folder know one disk under numbers of their own.
        note = folder / f"{_name(str(annotations.absolute()), str(before.st_dev))}.digest"
        known = _read(note)
        if isinstance(known, list) and len(known) == 2 and known[0] == stamp_of(before):
            return str(known[1])
        digest = hashlib.sha256()
        while piece := file.read(_PIECE):
            digest.update(piece)
        after = os.fstat(file.fileno())
    found = digest.hexdigest()
    if stamp_of(before) == stamp_of(after) and is_settled(after):
        _write(note, [stamp_of(after), found])
    return found


def pictures_seen(file: Path, folders: Sequence[Path]) -> FoldersSeen | None:
    """What picture folders held when all pictures of an index were there; None: it isn't known."""
    known = _read(_seen_note(file, folders))
    try:
        return [{below: (stamp, digest) for below, (stamp, digest) in of.items()} for of in known]
    except (AttributeError, TypeError, ValueError):
        return None


def note_pictures_seen(file: Path, folders: Sequence[Path], seen: FoldersSeen) -> None:
    """All pictures of an index were found in folders that held this."""
    _write(_seen_note(file, folders), [dict(one) for one in seen])


def _seen_note(file: Path, folders: Sequence[Path]) -> Path:
    words = [file.name]
    for folder in folders:
        words.append(str(folder.absolute()))
        with suppress(OSError):
            words.append(str(folder.stat().st_dev))
    return file.with_name(f"{_name(*words)}.seen")


def _name(*words: str) -> str:
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:32]


def _read(note: Path) -> Any:
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    mark_used(note)
    return found


def _write(note: Path, content: Any) -> None:
    """Whole or not at all, and not at all where the disk is full."""
    temporary = temporary_beside(note)
    try:
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(note)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
