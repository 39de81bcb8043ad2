"""What a run folder of the lab is a training of: settings and backbone, in a file beside it.

The training command carries on what it finds in its folder, some settings changed or not; and a
training that diverged is known by its folder alone. What lies there must be of the very training
that is asked for, or its record would tell of another.
"""

import json
from pathlib import Path

from megdet_hvd.checkpoint.atomic import write_bytes
from megdet_hvd.errors import UserError


def mark_of(folder: Path) -> Path:
    """The file that says it."""
    return folder.with_name(folder.name + ".of")


def claim(folder: Path, settings: str, backbone: str) -> None:
    """Note what ``folder`` is of; without a note it is taken for what is asked for.

    Raises:
        UserError: it is of something else, or the note can't be written.
    """
    mark, wanted = mark_of(folder), {"settings": settings, "backbone": backbone}
    try:
        found = _read(mark) if folder.exists() and mark.exists() else wanted
        folder.parent.mkdir(parents=True, exist_ok=True)
        if found == wanted:
            write_bytes(mark, (json.dumps(wanted) + "\n").encode())
    except OSError as error:
        raise UserError(
            f"{folder}: trainings can't be kept there ({error.strerror}); try another --work"
        ) from error
    if found != wanted:
        raise UserError(
            f"{folder} is a training of other settings, or from another backbone: remove it, or "
            "take another --work"
        )


def _read(mark: Path) -> object:
    """None where it says nothing."""
    try:
        return json.loads(mark.read_bytes())
    except (ValueError, RecursionError):
        return None
