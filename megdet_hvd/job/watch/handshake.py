"""How the two ends of a connection come to trust one another. Pure.

Rank 0 speaks first, with a nonce that it never gave before. The other end answers with its rank, a
nonce of its own and a proof over all three that it knows the job's secret; rank 0 proves the same.
So neither a stranger nor a process of another job is listened to, nor whoever has recorded an
earlier handshake. From both nonces follows the key that every later line is sealed with.
"""

import hashlib
import hmac
import re
import secrets
from typing import Any, TypeGuard

Message = dict[str, Any]

_NONCE = re.compile("[0-9a-f]{32}")


def new_secret() -> str:
    """The secret of one job."""
    return secrets.token_hex(16)


def challenge() -> Message:
    """Rank 0's first words on a connection."""
    return {"challenge": secrets.token_hex(16)}


def hello(secret: str, rank: int, challenge: Message) -> Message | None:
    """The answer to a challenge; None: it is none, so that this is not rank 0."""
    theirs, ours = challenge.get("challenge"), secrets.token_hex(16)
    if not _is_nonce(theirs):
        return None
    return {
        "hello": rank,
        "nonce": ours,
        "proof": _proof(secret, "hello", _words(rank, theirs, ours)),
    }


def authenticated_rank(hello: Message, challenge: Message, secret: str) -> int | None:
    """The rank that answers our challenge; None: it does not know the secret."""
    rank, nonce = hello.get("hello"), hello.get("nonce")
    if type(rank) is not int or not _is_nonce(nonce):
        return None
    known = _proof(secret, "hello", _words(rank, challenge["challenge"], nonce))
    return rank if _same(hello.get("proof"), known) else None


def welcome(hello: Message, challenge: Message, secret: str) -> Message:
    """The answer to a hello of :func:`authenticated_rank`."""
    return {"welcome": _proof(secret, "welcome", _exchange(hello, challenge))}


def is_welcome(answer: Message, hello: Message, challenge: Message, secret: str) -> bool:
    """Whether the answer to our hello comes from rank 0 of this job."""
    return _same(answer.get("welcome"), _proof(secret, "welcome", _exchange(hello, challenge)))


def session_key(hello: Message, challenge: Message, secret: str) -> bytes:
    """What seals the later lines of this one connection."""
    return _proof(secret, "session", _exchange(hello, challenge)).encode()


def seal(key: bytes, sender: str, number: int, line: bytes) -> bytes:
    """Goes before the ``number``-th line of ``sender``: 32 hexadecimal digits."""
    text = f"{sender} {number} ".encode() + line
    return hmac.new(key, text, hashlib.sha256).hexdigest()[:32].encode()


def _exchange(hello: Message, challenge: Message) -> str:
    return _words(hello["hello"], challenge["challenge"], hello["nonce"])


def _words(rank: int, theirs: str, ours: str) -> str:
    return f"{rank} {theirs} {ours}"


def _proof(secret: str, role: str, words: str) -> str:
    return hmac.new(secret.encode(), f"{role} {words}".encode(), hashlib.sha256).hexdigest()


def _is_nonce(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _NONCE.fullmatch(value) is not None


def _same(given: object, known: str) -> bool:
    """Any text may have been given, characters that are no ASCII or no character among it."""
    return isinstance(given, str) and hmac.compare_digest(
        given.encode("utf-8", "replace"), known.encode()
    )
