"""One file over HTTP: resumed where it broke off, checked, and put in place whole."""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from megdet_hvd.errors import UserError

CHUNK_BYTES = 1 << 20
READ_TIMEOUT_S = 60.0

DownloadProgress = Callable[[int, int | None], None]
"""Called with (bytes so far, bytes in all where known)."""


class _Interrupted(Exception):
    """The transfer broke off; what has arrived is kept."""


def download(
    url: str,
    target: Path,
    *,
    checksum: str,
    size_bytes: int | None = None,
    attempts: int = 5,
    wait_s: float = 2.0,
    progress: DownloadProgress = lambda done, total: None,
) -> None:
    """Download ``url`` to ``target``, which appears only when whole and checked.

    What has arrived lies in ``target.part`` meanwhile; a later call carries on from there, where
    the server can send a part of a file. An attempt that brings something doesn't count.

    Args:
        url: where it is.
        target: where it goes.
        checksum: ``md5:…`` or ``sha256:…``, perhaps only the beginning.
        size_bytes: its size, where known.
        attempts: attempts in a row that bring nothing before giving up.
        wait_s: seconds before the second attempt; doubled each time.
        progress: told what has arrived.

    Raises:
        UserError: the server refuses, cannot be reached, or sends something else.
    """
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    failures, restarted = 0, False
    while True:
        before = _size(part)
        try:
            _transfer(url, part, size_bytes, progress)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise UserError(
                    f"{url}: the server answered {error.code} {error.reason}; if it has moved, "
                    f"name a mirror with --base-url"
                ) from None
            reason = f"{error.code} {error.reason}"
        except (_Interrupted, OSError, http.client.HTTPException) as error:
            reason = str(error)
        else:
            found = digest(part, checksum)
            if found == checksum:
                os.replace(part, target)
                return
            part.unlink()
            if before == 0 or restarted:
                raise UserError(
                    f"{url}: what arrived has {found}, and {checksum} was expected; the server "
                    f"(or something on the way) sends another file; nothing was kept"
                )
            restarted = True  # an old beginning may not belong to today's file: once from the start
            continue
        failures = 0 if _size(part) > before else failures + 1
        if failures >= attempts:
            raise UserError(
                f"{url}: given up after {attempts} attempts ({reason}); {_size(part)} bytes are "
                f"kept in {part}, and the same command carries on from there"
            )
        time.sleep(wait_s * 2**failures)


def digest(file: Path, like: str) -> str:
    """The checksum of a file in the form of ``like``: same algorithm, same length."""
    algorithm, wanted = like.split(":", 1)
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, algorithm).hexdigest()
    return f"{algorithm}:{found[: len(wanted)]}"


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _transfer(url: str, part: Path, size_bytes: int | None, progress: DownloadProgress) -> None:
    """Fetch what is missing of ``part``; returns when it is as long as the server says."""
    start = _size(part)
    if size_bytes is not None and start > size_bytes:
        part.unlink()
        start = 0
    if size_bytes is not None and start == size_bytes:
        return
    request = urllib.request.Request(url, headers={"User-Agent": "megdet_hvd"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=READ_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing beyond what we have: the checksum will tell
            return
        raise
    with response:
        if response.status != 206 or not _begins_at(response.headers, start):
            start = 0  # the server sends the whole file
        length = response.headers.get("Content-Length")
        total = start + int(length) if length is not None else size_bytes
        done = start
        with part.open("ab" if start else "wb") as file:
            while block := response.read(CHUNK_BYTES):
                file.write(block)
                done += len(block)
                progress(done, total)
    if total is not None and done < total:
        raise _Interrupted(f"the connection ended after {done} of {total} bytes")


def _begins_at(headers: http.client.HTTPMessage, start: int) -> bool:
    return headers.get("Content-Range", "").startswith(f"bytes {start}-")
