"""Paths as users write them: ``~`` and ``${VARIABLE}`` expanded."""

import os
import re
from pathlib import Path

from megdet_hvd.errors import UserError

_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


def expand_path(text: str) -> Path:
    """The path that ``text`` names, with ``~``, ``${NAME}`` and ``$NAME`` replaced.

    Raises:
        UserError: a variable is not set, or the path is empty.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        found = os.environ.get(name)
        if not found:
            raise UserError(
                f"path {text!r}: the environment variable {name} is not set; "
                f"set it (export {name}=/some/folder) or write the path out"
            )
        return found

    path = _VARIABLE.sub(value, text)
    if not path.strip():
        raise UserError("an empty path was given where a file or folder is needed")
    return Path(path).expanduser()
