"""Memory that was freed goes back to the system, in processes that live through many tests.

glibc keeps what lies between blocks in use. Workers and ranks grew to 0.8 and 1.8 GB, which
took the place of the libraries' own files in the page cache: each launch read torch from the disk.
"""

import ctypes
import gc
from contextlib import suppress


def give_back() -> None:
    """A few ms."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
