"""The BN messages that this process sends, by name: on every rank, where Horovod's timeline shows
the process sets of rank 0 only."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from torch import Tensor

from megdet_hvd.bn.carriers import Carrier


class Sent:
    """Sums of groups of several processes."""

    def __init__(self) -> None:
        self.names: list[str] = []
        """Oldest first."""
        self.bytes = 0

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.names)


@contextmanager
def watched_messages() -> Iterator[Sent]:
    """Within it, each message is noted once its sum is there."""
    sent, carried = Sent(), Carrier.sum

    def noting(self: Carrier, vector: Tensor, name: str) -> Tensor:
        size = vector.numel() * vector.element_size()
        total = carried(self, vector, name)
        sent.names.append(name)
        sent.bytes += size
        return total

    with mock.patch.object(Carrier, "sum", noting):
        yield sent
