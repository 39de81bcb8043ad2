"""Paths as users write them in a configuration."""

import os
import re
from pathlib import Path

from megdet_hvd.errors import UserError

_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


def expand_path(text: str, key: str = "path") -> Path:
    """``text`` with ``~``, ``${NAME}`` and ``$NAME`` replaced; a relative path stays relative.

    The configuration keeps the text as written, so a run folder can move to another machine;
    this is called where the file is opened. ``key`` names the setting in messages.

    Raises:
        UserError: the path is empty, or a variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        found = os.environ.get(name)
        if not found:
            raise UserError(
                f"{key}={text}: the environment variable {name} is not set; "
                f"set it (export {name}=/some/folder), or write the path out"
            )
        return found

    path = _VARIABLE.sub(value, text)
    if not path.strip():
        raise UserError(f"{key} is empty: give the path of a file or folder")
    return Path(path).expanduser()
