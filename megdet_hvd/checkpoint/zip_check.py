"""Whether a checkpoint is as it was written, by the checksums of its zip container. No torch."""

import zipfile
from pathlib import Path

from megdet_hvd.errors import UserError
from megdet_hvd.storage import ReadFile, retried

NOT_A_ZIP = (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError)
"""What zipfile raises where a container is cut off or overwritten."""


class DamagedFileError(UserError):
    """The file is cut off or its bytes have changed."""


def check_sums(path: Path) -> None:
    """Read a zip container through, every checksum of it.

    Raises:
        DamagedFileError: it is cut off or overwritten, or a checksum doesn't fit.
        OSError: it can't be read, which says nothing of its bytes.
    """

    def first_bad() -> str | None:
        with ReadFile(path) as file, zipfile.ZipFile(file) as archive:
            return archive.testzip()

    try:
        bad = retried(first_bad)
    except NOT_A_ZIP as error:
        raise DamagedFileError(f"{path} is damaged: it is cut off or overwritten") from error
    if bad is not None:
        raise DamagedFileError(f"{path} is damaged: the checksum of its part {bad} does not fit")
