"""Values travel between processes that ``horovodrun --gloo`` started, before Horovod runs.

The launcher keeps a small store that Horovod's own start-up uses. We use it too, in a scope of our
own: a first Horovod session for the purpose would not do, since a second one then finds the
addresses of the first where a process is slow ("Connection refused", now and then).
"""

import math
import time
from collections.abc import Mapping
from typing import Any, Literal

from megdet_hvd.cluster.time_limits import start_limit_s
from megdet_hvd.errors import RunError

_POLL_S = 0.05

_meetings = 0


def meet(
    value: Any,
    rank: int,
    size: int,
    environ: Mapping[str, str],
    *,
    wait_s: float | Literal["start"] | None = "start",
) -> list[Any]:
    """``value`` of every process, in rank order, on every process. All of them call it together.

    Raises:
        RunError: a process did not come within ``wait_s`` (``start``: the time that so many may
            take to start; None: wait for ever); names the ranks that are missing.
    """
    if size == 1:
        return [value]
    scope = _scope()
    _put(environ, scope, str(rank), value)
    limit_s = start_limit_s(size) if wait_s == "start" else wait_s
    end = math.inf if limit_s is None else time.monotonic() + limit_s
    if rank == 0:
        found: dict[int, Any] = {}
        while len(found) < size:
            for other in range(size):
                if other not in found and (own := _get(environ, scope, str(other))) is not None:
                    found[other] = own
            if len(found) < size:
                _pause(end, [r for r in range(size) if r not in found])
        _put(environ, scope, "all", [found[other] for other in range(size)])
    while (everyone := _get(environ, scope, "all")) is None:
        _pause(end, [0])
    return list(everyone)


def _scope() -> str:
    """A new one for each meeting; processes meet equally often."""
    global _meetings
    _meetings += 1
    return f"megdet_hvd_{_meetings}"


def _pause(end: float, missing: list[int]) -> None:
    if time.monotonic() > end:
        raise RunError(
            f"ranks {missing} did not start in time; look for their error messages, and whether "
            "their machines answer"
        )
    time.sleep(_POLL_S)


def _where(environ: Mapping[str, str]) -> tuple[str, str]:
    return environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"], environ["HOROVOD_GLOO_RENDEZVOUS_PORT"]


def _put(environ: Mapping[str, str], scope: str, key: str, value: Any) -> None:
    from horovod.runner.http.http_client import put_data_into_kvstore

    put_data_into_kvstore(*_where(environ), scope, key, value)


def _get(environ: Mapping[str, str], scope: str, key: str) -> Any | None:
    """None: not there yet."""
    from horovod.runner.http.http_client import read_data_from_kvstore

    try:
        return read_data_from_kvstore(*_where(environ), scope, key)
    except RuntimeError as error:
        if getattr(error.args[-1], "code", None) == 404:
            return None
        raise
