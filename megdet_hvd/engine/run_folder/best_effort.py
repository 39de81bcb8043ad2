"""What a run can do without: files and lines that fail cost a warning, and no more."""

from collections.abc import Iterator
from contextlib import contextmanager

from megdet_hvd.errors import text_of
from megdet_hvd.job.log import LOGGER


class BestEffort:
    """One kind of such things. The first failure is told, and training goes on."""

    def __init__(self, what: str, done: str = "written") -> None:
        self.what, self.done = what, done
        self.failed = False
        """Whether any attempt failed so far."""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around an attempt: whatever goes wrong in it ends the block only.

        KeyboardInterrupt and SystemExit pass. The block must not communicate: the other ranks
        would wait for this one.
        """
        try:
            yield
        except Exception as error:
            if not self.failed:
                self.failed = True
                LOGGER.warning(
                    f"warning: {self.what} can't be {self.done} ({reason_of(error)}), "
                    "and training goes on without; this is said once"
                )


def reason_of(error: Exception) -> str:
    """In one line; an error of the file system in its own words, any other with its kind."""
    if isinstance(error, OSError):
        return error.strerror or text_of(error)
    text = " ".join(text_of(error).split())
    kind = type(error).__name__
    return f"{kind}: {text}" if text else kind
