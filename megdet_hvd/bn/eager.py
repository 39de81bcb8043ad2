"""Keep a function out of compiled graphs, without loading the compiler until it is in use."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def outside_graphs(function: Callable[P, T]) -> Callable[P, T]:
    """``torch.compile`` breaks its graph here and calls ``function`` as it is.

    An autograd function that waits for other processes is no work for a compiler.
    """

    @functools.wraps(function)
    def call(*arguments: P.args, **words: P.kwargs) -> T:
        if not torch.compiler.is_compiling():
            return function(*arguments, **words)
        kept: Callable[P, T] | None = getattr(function, "_outside_graphs", None)
        if kept is None:
            kept = torch.compiler.disable(function)
            function._outside_graphs = kept  # type: ignore[attr-defined]
        return kept(*arguments, **words)

    return call
