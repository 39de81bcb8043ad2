"""What files of ``torch.save`` may hold besides tensors and plain values, and the way out.

They are read with ``weights_only``, so that a file can't run code. ``argparse.Namespace`` is let
through: it only keeps attributes, and torchvision's own training script writes one into every
checkpoint.
"""

import argparse
import re
import shlex
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from megdet_hvd.wording import first_of

HARMLESS = (argparse.Namespace,)
"""Classes that hold values and run nothing."""

_NAMED = re.compile(r"(?:GLOBAL|class) ([\w.]+)")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_SHOWN = 3


def harmless_classes() -> AbstractContextManager[None]:
    """Inside, ``torch.load(…, weights_only=True)`` takes the classes above too."""
    found: AbstractContextManager[None] = torch.serialization.safe_globals(list(HARMLESS))
    return found


def foreign_classes(path: Path, error: BaseException) -> list[str]:
    """The classes for which a file was refused with ``error``; empty: that is not why."""
    try:
        with harmless_classes():
            found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # an old format, or damaged: torch's message names the first
        found = _NAMED.findall(str(error)) if "Weights only" in str(error) else []
    return sorted(set(found))


def plain_words(path: Path, classes: list[str]) -> str:
    """Why a file with foreign classes is not read, and the command that makes a plain one of it."""
    return (
        f"it holds objects of {first_of(classes, _SHOWN)}, and loading those could run "
        f"code of whoever wrote the file. If you trust it, this makes a plain file of its weights, "
        f"{plain_name(path)}:\n  {plain_command(path)}"
    )


def plain_name(path: Path) -> Path:
    """Where the command leaves the plain file."""
    return path.with_name(f"{path.stem}_plain.pth")


def plain_command(path: Path) -> str:
    """A shell command that loads a file whatever it holds, and saves its weights alone."""
    program = (
        f"import torch; c = torch.load({str(path)!r}, 'cpu', weights_only=False); "
        "m = c.get('model', c.get('state_dict', c)) if isinstance(c, dict) else c; "
        f"torch.save(m.state_dict() if hasattr(m, 'state_dict') else m, {str(plain_name(path))!r})"
    )
    return f"python -c {shlex.quote(program)}"


def first_line(error: BaseException) -> str:
    """The first line of torch's message, for a message of ours: no colours, not too long."""
    return _ESCAPES.sub("", str(error)).strip().split("\n")[0][:200]
