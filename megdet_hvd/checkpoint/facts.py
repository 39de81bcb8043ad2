"""The plain values of a checkpoint, read without torch.

``torch.save`` writes a zip container: one part holds the pickled dictionary, the others the
bytes of its tensors. The pickle alone is some hundred KB, says everything but the tensors'
values, and the standard library reads it, so that a login node without torch, and every rank
before Horovod starts, can look at any checkpoint. A record of its own beside the checkpoint
would be a second truth to keep, lose and prune.
"""

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from megdet_hvd.checkpoint.naming import FORMAT, find_checkpoint
from megdet_hvd.checkpoint.zip_check import NOT_A_ZIP, DamagedFileError
from megdet_hvd.config.saved_layout import SavedLayout, saved_layout_of
from megdet_hvd.errors import UserError
from megdet_hvd.storage import ReadFile, cannot_read, retried


class Absent:
    """Stands for a tensor, or whatever else is no plain value."""

    def __init__(self, *_: object, **__: object) -> None:
        pass


class _PlainUnpickler(pickle.Unpickler):
    """Executes nothing: every class or function that a pickle names is :class:`Absent`."""

    def find_class(self, module: str, name: str) -> Any:
        return OrderedDict if (module, name) == ("collections", "OrderedDict") else Absent

    def persistent_load(self, pid: Any) -> Any:
        return None


def read_facts(path: Path) -> dict[str, Any]:
    """The content of a checkpoint of ours, with :class:`Absent` in the place of each tensor.

    Args:
        path: the file, or a run folder: its latest checkpoint.

    Raises:
        DamagedFileError: cut off, or the checksum of that part doesn't fit.
        UserError: it isn't there, can't be read, or is no checkpoint of ours.
        StorageError: it can't be read at the moment.
    """
    path = find_checkpoint(path)
    try:
        text = retried(lambda: _pickle_of(path))
        content = None if text is None else _PlainUnpickler(io.BytesIO(text)).load()
    except OSError as error:
        raise cannot_read(path, error) from error
    except NOT_A_ZIP as error:
        raise DamagedFileError(f"{path} is damaged: it is cut off or overwritten") from error
    except Exception as error:  # unpickling foreign bytes raises anything
        raise UserError(f"{path}: not a usable checkpoint: its values can't be read") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path}: not a checkpoint of megdet_hvd")
    return content


def _pickle_of(path: Path) -> bytes | None:
    """The part with the plain values; None: there is none."""
    with ReadFile(path) as file, ZipFile(file) as archive:
        parts = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        return archive.read(parts[0]) if parts else None


def read_saved_layout(path: Path) -> SavedLayout:
    """On which processes a checkpoint was made. ``path`` and errors as in :func:`read_facts`."""
    facts = read_facts(path)
    try:
        return saved_layout_of(facts)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: the checkpoint does not say on which processes it was made ({error!r})"
        ) from error
