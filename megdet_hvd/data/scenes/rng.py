"""Random draws that give the same values with every NumPy version."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class SceneRng:
    """Draws from the raw bits of PCG64.

    NumPy promises to keep those; what its ``Generator`` makes of them may change.
    """

    def __init__(self, name: str) -> None:
        seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), "big")
        self._bits = np.random.PCG64(seed)
        self._ready: list[int] = []

    def unit(self) -> float:
        """A number in 0 … 1, 1 excluded."""
        if not self._ready:
            self._ready = self._bits.random_raw(256).tolist()
        return (self._ready.pop() >> 11) * 2.0**-53

    def between(self, low: float, high: float) -> float:
        """A number in low … high."""
        return low + (high - low) * self.unit()

    def count(self, low: int, high: int) -> int:
        """A whole number in low … high, both included."""
        return low + int(self.unit() * (high - low + 1))

    def pick(self, choices: Sequence[T]) -> T:
        """One of the choices."""
        return choices[int(self.unit() * len(choices))]

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.unit() < probability

    def bytes(self, *shape: int) -> NDArray[np.uint8]:
        """An array of random bytes."""
        size = 1
        for side in shape:
            size *= side
        return self._bits.random_raw(-(-size // 8)).view(np.uint8)[:size].reshape(shape)
