"""Storage that fails for the moment: what opens, looks at or lists a file raises for a while."""

import builtins
import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock


class Failing:
    """Counts down the failures, and counts those that took effect."""

    def __init__(self, ending: str, number: int, times: float) -> None:
        self.ending, self.number, self.left = ending, number, times
        self.met = 0
        """How often it really failed."""

    def look(self, path: Any) -> None:
        """Raise, where ``path`` is meant and it is not over."""
        named = isinstance(path, str | os.PathLike)
        if named and os.fspath(path).endswith(self.ending) and self.left > 0:
            self.left -= 1
            self.met += 1
            raise OSError(self.number, os.strerror(self.number), os.fspath(path))


@contextmanager
def failing(ending: str, number: int, times: float = 1, calls: str = "open") -> Iterator[Failing]:
    """Within it, ``calls`` (open, stat or list) of files whose path ends so fail ``times``."""
    state = Failing(ending, number, times)

    def before(true: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any = ".", *rest: Any, **options: Any) -> Any:
            state.look(path)
            return true(path, *rest, **options)

        return call

    targets: dict[str, list[tuple[Any, str]]] = {
        "open": [(builtins, "open"), (io, "open")],
        "stat": [(os, "stat")],
        "list": [(os, "listdir"), (os, "scandir")],
    }
    with ExitStack() as stack:
        for module, name in targets[calls]:
            patched = before(getattr(module, name))
            stack.enter_context(mock.patch.object(module, name, patched))
        yield state
