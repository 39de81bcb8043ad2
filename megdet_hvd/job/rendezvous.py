"""Values travel between processes that ``horovodrun --gloo`` started, before Horovod runs.

The launcher keeps a small store that Horovod's own start-up uses. We use it too, in a scope of our
own: a first Horovod session for the purpose would not do, since a second one then finds the
addresses of the first where a process is slow ("Connection refused", now and then).

Anybody who reaches the launcher's machine may read this store and write to it. So what we find in
it is never run (:mod:`megdet_hvd.serialize`), and where the job has a key (``KEY_FILE``, ``KEYS``),
nothing is believed that was not sealed with it.
"""

import functools
import hashlib
import hmac
import http.client
import math
import os
import stat
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from megdet_hvd.cluster.time_limits import start_limit_s
from megdet_hvd.errors import RunError, UserError
from megdet_hvd.serialize import Garbled, dumps, loads

KEY_FILE = "MEGDET_KEY_FILE"
"""Variable that names a file with the job's key, which nobody else may read. It is better than a
key in the environment: horovodrun writes that into command lines."""
KEYS = ("_HOROVOD_SECRET_KEY", "HOROVOD_SECRET_KEY")
"""Else the variables that hold one, which some of Horovod's launchers hand on; the first counts."""
_POLL_S = 0.05
_ASKED_A_SECOND = 500
"""The store's server answers in Python: all processes together ask no more often, while they
wait."""
_ANSWER_S = 10.0
_AGAIN_S = (0.2, 1.0, 3.0)
"""Pauses before another try where the store does not answer: many ranks ask at once."""
_LARGEST = 1 << 26
"""Bytes of an answer."""
_SEAL = 32
"""Bytes."""

Method = Literal["GET", "PUT", "DELETE"]

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
            take to start; None: wait for ever); names the ranks that are missing. Or the store
            holds what no process of this job has put there.
    """
    everyone = meet_and_decide(value, _all, rank, size, environ, wait_s=wait_s)
    if not isinstance(everyone, list) or len(everyone) != size:
        raise _not_ours(environ, "all")
    return [value if other == rank else one for other, one in enumerate(everyone)]


def _all(found: list[Any]) -> list[Any]:
    return found


def meet_and_decide(
    value: Any,
    decide: Callable[[list[Any]], Any],
    rank: int,
    size: int,
    environ: Mapping[str, str],
    *,
    wait_s: float | Literal["start"] | None = "start",
) -> Any:
    """What ``decide`` makes of every process's ``value``, on every process; rank 0 calls it.

    Raises:
        RunError: as :func:`meet` does.
    """
    if size == 1:
        return decide([value])
    scope = _scope()
    limit_s = start_limit_s(size) if wait_s == "start" else wait_s
    end = math.inf if limit_s is None else time.monotonic() + limit_s
    if rank == 0:
        found = [value]  # nobody else has a say in this one
        while len(found) < size:
            own = _get(environ, scope, str(len(found)))
            if own is not None:
                found.append(own[0])
            elif time.monotonic() > end:
                later = range(len(found) + 1, size)
                gone = [other for other in later if _get(environ, scope, str(other)) is None]
                raise _too_late([len(found), *gone])
            else:  # those after it are asked once it is there: one question a pause
                time.sleep(_POLL_S)
        decided = decide(found)
        _put(environ, scope, "all", decided)
        return decided
    _put(environ, scope, str(rank), value)
    while (answer := _get(environ, scope, "all")) is None:
        if time.monotonic() > end:
            raise _too_late([0])
        time.sleep(max(_POLL_S, size / _ASKED_A_SECOND))
    return answer[0]


def _scope() -> str:
    """A new one for each meeting; processes meet equally often."""
    global _meetings
    _meetings += 1
    return f"megdet_hvd_{_meetings}"


def _too_late(missing: list[int]) -> RunError:
    return RunError(
        f"ranks {missing} did not start in time; look for their error messages, and whether "
        "their machines answer"
    )


def _put(environ: Mapping[str, str], scope: str, key: str, value: Any) -> None:
    content = dumps(value)
    _ask(environ, "PUT", f"{scope}/{key}", _seal(environ, scope, key, content) + content)


def _get(environ: Mapping[str, str], scope: str, key: str) -> tuple[Any] | None:
    """None: not there yet."""
    content = _ask(environ, "GET", f"{scope}/{key}")
    if content is None:
        return None
    known = _seal(environ, scope, key, content[_SEAL:])
    if not hmac.compare_digest(content[:_SEAL], known):
        raise _not_ours(environ, f"{scope}/{key}")
    try:
        return (loads(content[_SEAL:]),)
    except Garbled as error:
        raise _not_ours(environ, f"{scope}/{key}") from error


def _seal(environ: Mapping[str, str], scope: str, key: str, content: bytes) -> bytes:
    """Where there is no key, a checksum."""
    text = f"{scope}/{key} ".encode() + content
    return hmac.new(_secret(environ), text, hashlib.sha256).digest()


def _secret(environ: Mapping[str, str]) -> bytes:
    if path := environ.get(KEY_FILE):
        return _content(path)
    found = next((environ[name] for name in KEYS if environ.get(name)), "")
    return found.encode("utf-8", "surrogateescape")


@functools.cache
def _content(path: str) -> bytes:
    """Raises UserError: no file with a key, or others can read it."""
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            found = file.read().strip()
    except OSError as error:
        raise UserError(f"{KEY_FILE}={path}: can't be read ({error.strerror})") from None
    if mode & 0o077:
        raise UserError(f"{KEY_FILE}={path}: others can read it (mode {mode:04o}): chmod 600 it")
    if not found:
        raise UserError(
            f"{KEY_FILE}={path}: is empty; fill it with: (umask 077; openssl rand -hex 32 > {path})"
        )
    return found


def _not_ours(environ: Mapping[str, str], where: str) -> RunError:
    return RunError(
        f"the launcher's store at {_address(environ)} holds something under {where} that no "
        "process of this job has put there: either the processes have different keys "
        f"({KEY_FILE}: all must have the same, or none), or somebody else writes to it "
        "(SECURITY.md)"
    )


def _address(environ: Mapping[str, str]) -> str:
    return ":".join(_where(environ))


def _where(environ: Mapping[str, str]) -> tuple[str, str]:
    return environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"], environ["HOROVOD_GLOO_RENDEZVOUS_PORT"]


def _ask(
    environ: Mapping[str, str], method: Method, path: str, body: bytes | None = None
) -> bytes | None:
    """What the store answers; None: it has nothing there.

    Raises:
        RunError: it does not answer.
    """
    address, port = _where(environ)
    for pause_s in (*_AGAIN_S, None):
        try:
            return ask_store(address, int(port), method, path, body)
        except (OSError, http.client.HTTPException) as error:
            if pause_s is None:
                raise RunError(
                    f"the launcher's store at {_address(environ)} does not answer "
                    f"({type(error).__name__}: {error}); look whether the launcher still runs"
                ) from error
        time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")


def ask_store(
    address: str,
    port: int,
    method: Method,
    path: str,
    body: bytes | None = None,
    timeout_s: float = _ANSWER_S,
) -> bytes | None:
    """Ask a store of Horovod's; None: it has nothing there.

    Not by Horovod's client, which unpickles the answer, and asks a proxy where one is set.

    Raises:
        OSError, http.client.HTTPException: it does not answer, or is no such store.
    """
    connection = http.client.HTTPConnection(address, port, timeout=timeout_s)
    try:
        connection.request(method, f"/{path}", body)
        answer = connection.getresponse()
        if answer.status == http.HTTPStatus.NOT_FOUND:
            return None
        content = answer.read(_LARGEST + 1)
        if answer.status != http.HTTPStatus.OK or len(content) > _LARGEST:
            raise http.client.HTTPException(f"status {answer.status}, {len(content)} bytes")
        return content
    finally:
        connection.close()
