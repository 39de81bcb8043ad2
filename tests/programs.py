"""Programs of the package, called on the ranks of a pool as their command lines call them."""

from collections.abc import Sequence
from importlib import import_module

from tests.engine.small import thin_backbones


def run(module: str, words: Sequence[str]) -> int:
    """``python -m MODULE WORDS…`` without a new process; its exit code."""
    return int(import_module(module).main(list(words)))


def run_thin(module: str, words: Sequence[str]) -> int:
    """The same with :func:`~tests.engine.small.thin_backbones`."""
    with thin_backbones():
        return run(module, words)
