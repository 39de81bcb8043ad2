"""What an earlier Horovod session left in the launcher's store is taken out of it.

Under ``horovodrun --gloo`` the processes find each other through a store that lives as long as the
job. Horovod 0.28.1 means to empty it when a session ends, but forgets on the way who has left
(``finished_list.clear()`` in http_server.py clears the lists of all scopes, not of the one that is
done). A second session then finds the addresses of the first wherever a process is slow, and dies
of "Connection refused" or "Connect timeout".
"""

import http.client
import time
from collections.abc import Mapping

from megdet_hvd.errors import RunError

_WITHIN_S = 60.0
_ASK_S = 10.0

_sessions = 0


def forget_addresses(environ: Mapping[str, str]) -> bool:
    """Empty the scopes that this process is the first of; whether there was an earlier session.

    To be called by every process of the job before it starts Horovod, once all have stopped the
    session before; if it returns True, no process may start before all have come back.

    Raises:
        RunError: the store keeps them.
    """
    global _sessions
    _sessions += 1
    if _sessions == 1:
        return False
    for scope, place, size in _scopes(environ):
        if place == 0 and size > 1:
            _empty(environ, scope, size)
    return True


def _scopes(environ: Mapping[str, str]) -> list[tuple[str, int, int]]:
    """Horovod's three, with this process's place in each and how many others are in it."""

    def number(name: str) -> int:
        return int(environ[f"HOROVOD_{name}"])

    return [
        ("global", number("RANK"), number("SIZE")),
        (f"local_{environ['HOROVOD_HOSTNAME']}", number("LOCAL_RANK"), number("LOCAL_SIZE")),
        (f"cross_{number('LOCAL_RANK')}", number("CROSS_RANK"), number("CROSS_SIZE")),
    ]


def _empty(environ: Mapping[str, str], scope: str, size: int) -> None:
    """Leave in the name of everybody until the store forgets; others' scopes disturb the count."""
    end = time.monotonic() + _WITHIN_S
    while any(_ask(environ, "GET", f"/{scope}/{place}") == 200 for place in range(size)):
        if time.monotonic() > end:
            raise RunError(
                f"the launcher's store does not forget the addresses of the session before "
                f"({scope}); start one session a job, or start the job with mpirun"
            )
        _ask(environ, "DELETE", f"/{scope}/0")


def _ask(environ: Mapping[str, str], method: str, path: str) -> int:
    link = http.client.HTTPConnection(
        environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"],
        int(environ["HOROVOD_GLOO_RENDEZVOUS_PORT"]),
        timeout=_ASK_S,
    )
    try:
        link.request(method, path)
        answer = link.getresponse()
        answer.read()
        return answer.status
    finally:
        link.close()
