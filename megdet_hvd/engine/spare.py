"""Files that a run can do without: one that can't be written costs a warning, and no more."""

from collections.abc import Iterator
from contextlib import contextmanager

from megdet_hvd.engine.log import LOGGER


class Spare:
    """One kind of such files. The first failure is told, and training goes on."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.failed = False
        """Whether any attempt failed so far."""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around an attempt to write; an OSError (disk full, quota) ends the block only."""
        try:
            yield
        except OSError as error:
            if not self.failed:
                self.failed = True
                LOGGER.warning(
                    f"warning: {self.what} can't be written ({error.strerror or error}), "
                    "and training goes on without; this is said once"
                )
