"""How many BN messages this process sent, by name: seen on every rank, not on rank 0 alone.

Horovod's timeline shows the process sets of rank 0 only.
"""

from collections import Counter

_messages: Counter[str] = Counter()
_bytes: Counter[str] = Counter()


def note(name: str, size_bytes: int) -> None:
    """Count one message. Carriers call it."""
    _messages[name] += 1
    _bytes[name] += size_bytes


def messages() -> Counter[str]:
    """Messages by name since the last :func:`reset`."""
    return Counter(_messages)


def sent_bytes() -> int:
    """What this process put into sums since the last :func:`reset`."""
    return _bytes.total()


def reset() -> None:
    """Count from nought."""
    _messages.clear()
    _bytes.clear()
