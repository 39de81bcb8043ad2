"""Waiting for MPI without spinning, and being taken out of a wait."""

import time
from collections.abc import Callable
from typing import Any

_POLL_S = 0.002
"""A blocking MPI call spins, and takes a core from the rank that is waited for."""


class Interrupted(RuntimeError):
    """This member was taken out of a wait, since another one failed."""


def wait_for(request: Any, until: Callable[[], bool] = lambda: False) -> bool:
    """Wait for an MPI request without spinning; False: ``until`` came true before it was done."""
    while not request.Test():
        if until():
            return False
        time.sleep(_POLL_S)
    return True
