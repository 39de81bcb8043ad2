"""Writing and reading a checkpoint file.

A checkpoint is a dictionary of tensors and plain values, read back with
``weights_only=True`` so that a file from elsewhere can't run code. ``torch.load`` alone
doesn't notice a flipped bit in a tensor; the checksums of the zip container are there, and
are read first.
"""

import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from megdet_hvd.checkpoint.atomic import cannot_write, write_atomically
from megdet_hvd.checkpoint.naming import (
    BEST,
    FORMAT,
    find_checkpoint,
    iteration_of,
    list_checkpoints,
)
from megdet_hvd.checkpoint.zip_check import DamagedFileError, check_sums
from megdet_hvd.errors import StorageError, UserError
from megdet_hvd.storage import ReadFile, cannot_read, retried
from megdet_hvd.torch_file import foreign_classes, harmless_classes, plain_words

VERSION = 1
"""Raised when a reader of the former version could no longer make sense of the file."""

REQUIRED = ("config", "categories", "category_ids", "model", "images_seen", "iteration")
"""What evaluation and prediction need. Resuming also needs ``optimizer`` and ``random``."""

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.Tensor)


def save_checkpoint(
    path: Path,
    state: Mapping[str, Any],
    *,
    before_it_shows: Callable[[], None] = lambda: None,
) -> None:
    """Write ``state`` to ``path``, whole or not at all; ``format`` and ``version`` are added.

    Args:
        path: ``…/iteration_00001200.pt``; the folder is made where missing.
        state: tensors, numbers, strings and None in dicts, lists and tuples. Keys:
            ``config`` (plain dict), ``categories`` (names of labels 1…K), ``category_ids``
            (their ids in the annotation files), ``model`` (state dict), ``optimizer``,
            ``images_seen``, ``iteration``, ``ap``, ``random``, ``world``, ``bn_groups``.
        before_it_shows: called once it is on the disk; if it raises, ``path`` stays as it was.

    Raises:
        UserError: the file can't be written; an earlier file of that name is as it was.
        StorageError: so it is, and the storage fails for the moment.
        TypeError: ``state`` holds something that ``weights_only=True`` would not read back.
    """
    content = {"format": FORMAT, "version": VERSION, **state}
    missing = [key for key in REQUIRED if key not in content]
    assert not missing, missing
    check_plain(content, "checkpoint")
    try:
        write_atomically(path, lambda file: torch.save(content, file), before_it_shows)
    except OSError as error:
        raise cannot_write(path, error) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours, tensors on the CPU.

    Args:
        path: the file, or a run folder: its latest checkpoint.

    Raises:
        UserError: the file is missing, damaged (a sound one beside it is named), not a
            checkpoint of this package, or made by a newer version of it.
    """
    path = find_checkpoint(path)
    return check_content(read_or_offer_another(path), path)


def read_or_offer_another(path: Path) -> Any:
    """As :func:`read_torch_file`; of a damaged file the message names a sound one beside it."""
    try:
        return read_torch_file(path)
    except DamagedFileError as error:
        raise DamagedFileError(f"{error}{_offer_another(path)}") from error


def is_checkpoint(content: Any) -> bool:
    """Whether the content of a file says that it is a checkpoint of ours."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def check_content(content: Any, path: Path) -> dict[str, Any]:
    """The content of ``path``, if it is a checkpoint of ours that this version can use.

    Raises:
        UserError: it isn't.
    """
    if not is_checkpoint(content):
        raise UserError(
            f"{path}: not a checkpoint of megdet_hvd ({_describe(content)}). To start from the "
            f"weights of another model, pass model.init_from={path}"
        )
    version = content.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise UserError(
            f"{path}: checkpoint format {version}, and this megdet_hvd reads formats up to "
            f"{VERSION}. Use the megdet_hvd that wrote it, or a newer one"
        )
    missing = [key for key in REQUIRED if key not in content]
    if missing:
        raise UserError(f"{path}: the checkpoint lacks {', '.join(missing)}; it can't be used")
    found: dict[str, Any] = content
    return found


def is_sound(path: Path) -> bool:
    """Whether a file is a checkpoint of ours whose every byte is as it was written.

    One that can't be read at the moment is not known to be.
    """
    try:
        check_content(read_torch_file(path), path)
    except (UserError, StorageError):
        return False
    return True


def read_torch_file(path: Path) -> Any:
    """The content of any file of ``torch.save``, tensors on the CPU, nothing executed.

    Raises:
        DamagedFileError: cut off, empty, or a checksum doesn't fit.
        UserError: not there, not readable, or not tensors and plain values.
        StorageError: it can't be read at the moment, which is no proof of damage.
    """
    try:
        return retried(lambda: _read(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint file") from None
    except OSError as error:
        raise cannot_read(path, error) from error


def _read(path: Path) -> Any:
    if path.is_dir():
        raise UserError(f"{path}: is a folder, and a checkpoint file is needed")
    if path.stat().st_size == 0:
        raise DamagedFileError(f"{path} is damaged: the file is empty")
    with path.open("rb") as file:
        head = file.read(4)
    if head == b"PK\x03\x04":
        check_sums(path)
    return _torch_load(path, is_zip=head == b"PK\x03\x04", is_pickle=head[:1] == b"\x80")


def _torch_load(path: Path, *, is_zip: bool, is_pickle: bool) -> Any:
    try:
        with warnings.catch_warnings(), harmless_classes(), ReadFile(path) as file:
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(file, map_location="cpu", weights_only=True)  # type: ignore[arg-type]
    except pickle.UnpicklingError as error:
        if classes := foreign_classes(path, error):
            reason = plain_words(path, classes)
        elif is_zip or (is_pickle and ("Unsupported" in str(error) or "GLOBAL" in str(error))):
            reason = "it holds objects other than tensors and plain values, which are not loaded"
        else:
            reason = "it is not a file of torch.save, or it is damaged"
        raise UserError(f"{path}: not a usable checkpoint: {reason}") from error
    except (RuntimeError, EOFError, KeyError, IndexError, ValueError, TypeError) as error:
        raise DamagedFileError(f"{path} is damaged: torch can't read it") from error


def _offer_another(path: Path) -> str:
    """Names a sound checkpoint beside a damaged one: the last before it, else the newest."""
    number = iteration_of(path)
    best = path.with_name(BEST)
    try:
        others = [p for p in reversed(list_checkpoints(path.parent)) if p != path]
        has_best = best.exists()
    except OSError:  # the damage is what counts
        return ""
    if number is not None:  # Going back is what resuming wants; newer ones come after.
        others.sort(key=lambda p: (iteration_of(p) or 0) > number)
    if has_best and best != path:
        others.append(best)
    for other in others:
        if is_sound(other):
            before = number is not None and (iteration_of(other) or number) < number
            which = "previous" if before else "newest other"
            return f"; the {which} good one is {other.name}: pass {other} instead"
    return "; there is no other good checkpoint beside it"


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        if content and all(isinstance(value, torch.Tensor) for value in content.values()):
            return f"a state dict of {len(content)} tensors"
        keys = ", ".join(str(key) for key in list(content)[:5])
        return f"a dictionary with the keys {keys}" if keys else "an empty dictionary"
    return f"a {type(content).__name__}"


def check_plain(value: Any, where: str) -> None:
    """Fail before writing what could not be read back: weights_only knows a short list of types."""
    if isinstance(value, dict):
        for key, item in value.items():
            check_plain(key, f"{where} key {key!r}")
            check_plain(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            check_plain(item, f"{where}[{position}]")
    elif type(value) not in _PLAIN and not isinstance(value, torch.Tensor):
        raise TypeError(f"{where} holds a {type(value).__name__}: use tensors or plain values")
