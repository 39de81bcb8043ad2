"""What a run asks of whoever measures its detector."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path


class Evaluations(ABC):
    """The evaluations of a run. All its processes call each method together."""

    needs_checkpoint = False
    """Whether a checkpoint must be written where an evaluation is due."""

    @property
    def protected(self) -> Collection[Path]:
        """Checkpoints that must not be deleted yet."""
        return ()

    @abstractmethod
    def begin(self) -> bool:
        """The run begins, or is carried on: make up for what is missing.

        Returns:
            Whether the detector as it is now is among it, or had been measured before.
        """

    @abstractmethod
    def measure(self) -> None:
        """An evaluation of the detector as it is now is due."""

    def saved(self, path: Path | None) -> None:
        """The checkpoint of the detector as it is now has been written; None: it could not be."""
        return None

    def look(self) -> None:
        """Between two steps: take in results that have come."""
        return None

    def finish(self) -> None:
        """The last step is done: wait for what is outstanding, or until the job shall stop."""
        return None

    def close(self) -> None:
        """The run ends, whether at its end or stopped: nothing more is measured."""
        return None
