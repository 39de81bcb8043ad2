"""Somebody who loads steps, and how their errors travel to whoever waits for the steps."""

import queue
import traceback
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from megdet_hvd.data.activity import Activity
from megdet_hvd.errors import RunError, StorageError, UserError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

LOOK_S = 1.0
"""How often a wait looks at whoever is waited for."""
IDLE_S = 2.0
"""One that does nothing is waited for so long at the end."""
_OWN_ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (UserError, RunError, StorageError)
}


class Steps(Protocol[T_co]):
    """What is loaded, by number."""

    def __getitem__(self, number: int) -> T_co:
        """Load one step."""

    def files(self, number: int) -> Sequence[str]:
        """The pictures of a step, to name them."""


class LoadingFailure:
    """An error of whoever loads, on its way to whoever waits."""

    def __init__(self, error: BaseException) -> None:
        self.kind, self.text = type(error).__name__, str(error)
        self.trace = "".join(traceback.format_exception(error))

    def as_error(self, who: str) -> Exception:
        """What to raise."""
        if self.kind in _OWN_ERRORS:
            return _OWN_ERRORS[self.kind](self.text)
        error = MemoryError if self.kind == "MemoryError" else RuntimeError
        return error(f"{who} failed: {self.kind}: {self.text}\n{self.trace}")


class StepLoader(ABC, Generic[T]):
    """Somebody who loads the steps that it is asked for, one after another."""

    def __init__(self) -> None:
        self.done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        """What was loaded, in the order asked for; or a LoadingFailure; None: no more will come."""

    @property
    @abstractmethod
    def who(self) -> str:
        """For messages."""

    @abstractmethod
    def ask(self, number: int) -> None:
        """Want a step; returns at once."""

    @abstractmethod
    def activity(self) -> Activity | None:
        """How far it is; None: it can't be told."""

    @abstractmethod
    def reading(self, files: Sequence[str]) -> str | None:
        """Which of these files it has open, where that can be told."""

    @abstractmethod
    def gone(self) -> bool:
        """Whether it has ended."""

    @abstractmethod
    def how_it_ended(self) -> str:
        """Of one that will bring nothing more."""

    @abstractmethod
    def dismiss(self) -> None:
        """It may leave; returns at once."""

    @abstractmethod
    def close(self) -> None:
        """It has left, or is ended."""
