"""The side channel: messages between watchdogs over TCP, beside Horovod and MPI.

Messages are JSON objects, one a line. Both ends prove that they know the job's secret, which
travelled over Horovod (:mod:`megdet_hvd.job.watch.handshake`); from then on each line is sealed
with a key of this connection and its number in it. Until then the other end is a stranger, from
whom no more than a short line is taken.
"""

import hmac
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal

import psutil

from megdet_hvd.job.watch.handshake import Message, seal

End = Literal["hub", "spoke"]
State = Literal["open", "ended", "lost"]
"""Of a connection: ``ended`` by the other process, or ``lost`` by the network."""

_PIECE = 1 << 16
_LARGEST = 1 << 22
"""Bytes of unread input or unsent output beyond which a connection is given up."""
_LARGEST_GREETING = 4000
"""The same for input of strangers: a hello has 150."""
_SEAL = 32
"""Bytes before each sealed line."""


class LineSocket:
    """A connected socket that never makes its owner wait."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self.state: State = "open"
        self._unread = bytearray()
        self._unsent = bytearray()
        self._broken: State = "open"
        self._key: bytes | None = None
        self._own: End = "spoke"
        self._sent = self._received = 0

    def seal(self, key: bytes, own: End) -> None:
        """From now on both ends seal their lines with ``key``; this one is ``own``."""
        self._key, self._own = key, own

    def send(self, message: Message) -> None:
        """Send it, or keep what does not fit for the next time."""
        line = json.dumps(message).encode()
        if self._key is not None:
            line = seal(self._key, self._own, self._sent, line) + line
            self._sent += 1
        self._unsent += line + b"\n"
        self.flush()

    def flush(self) -> bool:
        """Send what was kept; whether nothing is left to send."""
        try:
            while self._unsent:
                del self._unsent[: self.socket.send(self._unsent)]
        except BlockingIOError:
            if len(self._unsent) > _LARGEST:
                self.state = "lost"
        except OSError as error:
            # What the other said before is still to be read; then the state says it too.
            self._broken = _state_after(error)
            self._unsent.clear()
        return not self._unsent

    def receive_one(self) -> Message | None:
        """The next whole message that has come, if any. Nonsense ends the connection."""
        if self.state == "lost":
            return None
        if b"\n" not in self._unread:
            self._fill()
        line, end, rest = self._unread.partition(b"\n")
        if not end:
            return None
        self._unread = rest
        try:
            text = self._unsealed(bytes(line))
            message = None if text is None else json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self.state = "lost"
            self._unread.clear()
            return None
        return message

    def receive(self) -> Iterator[Message]:
        """All whole messages that have come."""
        while (message := self.receive_one()) is not None:
            yield message

    def close(self) -> None:
        """Close it, after what was said."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            self._fill()  # unread input would make the kernel reset the connection
        self.socket.close()

    def _unsealed(self, line: bytes) -> bytes | None:
        """The message of a line; None: the other end did not send it as its next one."""
        if self._key is None:
            return line
        given, text = line[:_SEAL], line[_SEAL:]
        known = seal(self._key, "spoke" if self._own == "hub" else "hub", self._received, text)
        self._received += 1
        return text if hmac.compare_digest(given, known) else None

    def _fill(self) -> None:
        largest = _LARGEST_GREETING if self._key is None else _LARGEST
        try:
            while (room := largest - len(self._unread)) > 0:
                piece = self.socket.recv(min(_PIECE, room))
                self._unread += piece
                if not piece:
                    self.state = self._broken if self._broken != "open" else "ended"
                    return
            if b"\n" not in self._unread:
                self.state = "lost"
                self._unread.clear()
        except BlockingIOError:
            if self._broken != "open":
                self.state = self._broken
        except OSError as error:
            self.state = _state_after(error)


def _state_after(error: OSError) -> State:
    """A reset comes from the other kernel: its process is gone. The rest is the network's."""
    return "ended" if isinstance(error, (ConnectionResetError, BrokenPipeError)) else "lost"


def listen(*, loopback: bool) -> socket.socket:
    """A listening socket on a free port: of this machine only, or of all its addresses."""
    if loopback:
        server = socket.create_server(("127.0.0.1", 0), backlog=512)
    else:
        try:
            server = socket.create_server(
                ("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512
            )
        except (OSError, ValueError):  # a machine without IPv6
            server = socket.create_server(("", 0), backlog=512)
    server.setblocking(False)
    return server


def addresses(*, loopback: bool) -> list[str]:
    """The addresses under which others may reach this machine, likely ones first."""
    if loopback:
        return ["127.0.0.1"]
    found: list[str] = []
    states = psutil.net_if_stats()
    for name, entries in psutil.net_if_addrs().items():
        if name in states and not states[name].isup:
            continue
        found += [e.address for e in entries if e.family in (socket.AF_INET, socket.AF_INET6)]
    usable = [a for a in found if not a.startswith(("127.", "169.254.", "fe80:")) and a != "::1"]
    # The same machine's ranks are the only ones whom loopback brings here: it comes last.
    return [*sorted(usable, key=lambda address: ":" in address), "127.0.0.1"]
