"""Former names of what users import: they work, and a warning tells the new one."""

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any


def moved(former: str, now: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module ``former`` whose names are in the module ``now``."""

    def getattr_of_module(name: str) -> Any:
        found = getattr(import_module(now), name)
        warnings.warn(
            f"{former}.{name} has moved: import it from {now}", FutureWarning, stacklevel=2
        )
        return found

    return getattr_of_module
