"""Names in one run of bytes: a hundred thousand text objects less in each process."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

_CODE = ("utf-8", "surrogatepass")
"""JSON can spell half a letter."""


class NameTable(Sequence[str]):
    """n names, each decoded when it is asked for. Equal to a list of the same."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, text: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.text, self.ends = text, ends
        """All names after each other, and (n,) where each ends in bytes."""

    @classmethod
    def of(cls, names: Iterable[str]) -> "NameTable":
        """The names, brought into this form."""
        encoded = [name.encode(*_CODE) for name in names]
        ends = np.cumsum([len(one) for one in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        if isinstance(position, slice):
            return [self[k] for k in range(*position.indices(len(self)))]
        k = position.__index__()
        k += len(self) if k < 0 else 0
        if not 0 <= k < len(self):
            raise IndexError(f"name {position} of {len(self)}")
        start = int(self.ends[k - 1]) if k else 0
        return self.text[start : int(self.ends[k])].tobytes().decode(*_CODE)

    def __iter__(self) -> Iterator[str]:
        text, start = self.text.tobytes(), 0
        for end in self.ends.tolist():
            yield text[start:end].decode(*_CODE)
            start = end

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, list | NameTable):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
