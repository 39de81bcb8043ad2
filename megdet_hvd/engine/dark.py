"""Pictures that come out all but black, told of once a run."""

from megdet_hvd.data.depth import MANY, dark_words
from megdet_hvd.job.log import LOGGER


class DarkPictures:
    """Counts those of one rank, which stand for all."""

    def __init__(self) -> None:
        self._dark = self._read = 0
        self._told = False

    def count(self, iteration: int, read: int, dark: tuple[str, ...]) -> None:
        """A step of ``read`` pictures, of which the files ``dark`` are all but black."""
        self._dark += len(dark)
        self._read += read
        if dark and not self._told and self._dark >= MANY * self._read:
            self._told = True
            LOGGER.warning(
                f"warning: iteration {iteration}: {dark_words(self._dark, self._read, dark[0])}"
            )
