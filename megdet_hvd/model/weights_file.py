"""Weights from a file: read safely, and found inside whatever wraps them."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor

from megdet_hvd.errors import UserError
from megdet_hvd.storage import ReadFile, cannot_read, is_transient, retried
from megdet_hvd.torch_file import first_line, foreign_classes, harmless_classes, plain_words

UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    OSError,
    EOFError,
    BadZipFile,
    ValueError,
    KeyError,
)
"""What ``torch.load`` raises on files that are cut short, damaged or something else."""
WRAPPERS = ("model", "state_dict", "model_state_dict")
"""Keys under which training programs keep a model's weights."""


def read_weights(path: Path, setting: str) -> dict[str, Tensor]:
    """The named tensors of a PyTorch file, on the CPU; errors as in `read_content`."""
    return find_weights(read_content(path, setting), f"{setting}={path}")


def read_content(path: Path, setting: str) -> Any:
    """What is in a PyTorch file, on the CPU.

    Args:
        path: a file written by ``torch.save``.
        setting: what named it, for messages (``model.init_from``).

    Only tensors and plain values are read (``weights_only``): a file can't run code here.

    Raises:
        UserError: no such file, or a damaged or foreign one.
        StorageError: it can't be read at the moment.
    """
    if not retried(path.is_file):
        raise UserError(f"{setting}={path}: no such file; give the path of a PyTorch weights file")

    def load() -> Any:
        with ReadFile(path) as file:
            return torch.load(file, map_location="cpu", weights_only=True)  # type: ignore[arg-type]

    try:
        with harmless_classes():
            return retried(load)
    except UNREADABLE as e:
        if isinstance(e, OSError) and is_transient(e):
            raise cannot_read(f"{setting}={path}", e) from e
        if isinstance(e, pickle.UnpicklingError) and (classes := foreign_classes(path, e)):
            raise UserError(f"{setting}={path}: {plain_words(path, classes)}") from e
        reason = first_line(e)
        raise UserError(
            f"{setting}={path}: not a readable PyTorch weights file ({reason}); "
            "give a file that holds only a state dict, or copy it again if it is damaged"
        ) from e


def find_weights(content: Any, source: str) -> dict[str, Tensor]:
    """The state dict in ``content``: itself, or under one of WRAPPERS; ``module.`` is taken off.

    Raises:
        UserError: there is none. ``source`` says where ``content`` came from.
    """
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(v, Tensor) and isinstance(k, str) for k, v in content.items())
    ):
        raise UserError(
            f"{source}: holds no weights; expected a state dict (names to tensors), plain or "
            f"under one of the keys {', '.join(WRAPPERS)}"
        )
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): value for name, value in content.items()}
    return dict(content)
