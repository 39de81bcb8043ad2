"""The side channel: messages between watchdogs over TCP, beside Horovod and MPI.

Messages are JSON objects, one a line. Both ends prove that they know the job's secret, which
travelled over Horovod: neither a stranger nor a process of another job is listened to.
"""

import hashlib
import hmac
import json
import secrets
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal

import psutil

Message = dict[str, Any]
State = Literal["open", "ended", "lost"]
"""Of a connection: ``ended`` by the other process, or ``lost`` by the network."""

_PIECE = 1 << 16
_LARGEST = 1 << 22
"""Bytes of unread input or unsent output beyond which a connection is given up."""


class Link:
    """A connected socket that never makes its owner wait."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self.state: State = "open"
        self._unread = bytearray()
        self._unsent = bytearray()
        self._broken: State = "open"

    def send(self, message: Message) -> None:
        """Send it, or keep what does not fit for the next time."""
        self._unsent += json.dumps(message).encode() + b"\n"
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
        if b"\n" not in self._unread:
            self._fill()
        line, end, rest = self._unread.partition(b"\n")
        if not end:
            return None
        self._unread = rest
        try:
            message = json.loads(line)
        except ValueError:
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

    def _fill(self) -> None:
        try:
            while len(self._unread) <= _LARGEST:
                piece = self.socket.recv(_PIECE)
                self._unread += piece
                if not piece:
                    self.state = self._broken if self._broken != "open" else "ended"
                    return
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


def new_secret() -> str:
    """The secret of one job."""
    return secrets.token_hex(16)


def proof(secret: str, role: str, nonce: str) -> str:
    """Shows that one knows the secret, without giving it away to a stranger."""
    return hmac.new(secret.encode(), f"{role} {nonce}".encode(), hashlib.sha256).hexdigest()


def hello(secret: str, rank: int) -> Message:
    """The first message on a connection."""
    nonce = secrets.token_hex(16)
    return {"hello": rank, "nonce": nonce, "proof": proof(secret, f"hello {rank}", nonce)}


def greeted_rank(message: Message, secret: str) -> int | None:
    """The rank that says hello; None: it does not know the secret."""
    rank, nonce, given = (message.get(key) for key in ("hello", "nonce", "proof"))
    if not (isinstance(rank, int) and isinstance(nonce, str) and isinstance(given, str)):
        return None
    return rank if hmac.compare_digest(given, proof(secret, f"hello {rank}", nonce)) else None


def welcome(message: Message, secret: str) -> Message:
    """The answer to a hello."""
    return {"welcome": proof(secret, "welcome", message["nonce"])}


def is_welcome(answer: Message, greeting: Message, secret: str) -> bool:
    """Whether the answer to our hello comes from rank 0 of this job."""
    given = answer.get("welcome")
    return isinstance(given, str) and hmac.compare_digest(
        given, proof(secret, "welcome", greeting["nonce"])
    )
