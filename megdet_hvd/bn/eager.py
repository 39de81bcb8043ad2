"""Keep a function out of compiled graphs, without loading the compiler until it is in use."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import ParamSpec, TypeVar

import torch
from torch.utils._python_dispatch import _disable_current_modes

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


def unobserved() -> AbstractContextManager[object]:
    """Within it, no dispatch mode sees what is computed.

    torch's selective checkpointing is such a mode, and wants the same operations in the second
    computation as in the first, where sums and running statistics are of the first alone.
    """
    if not torch._C._len_torch_dispatch_stack():
        return nullcontext()
    modes: AbstractContextManager[object] = _disable_current_modes()
    return modes
