"""Programs of the package, called on the ranks of a pool as their command lines call them."""

from collections.abc import Sequence
from importlib import import_module


def run(module: str, words: Sequence[str]) -> int:
    """``python -m MODULE WORDS…`` without a new process; its exit code."""
    return int(import_module(module).main(list(words)))
