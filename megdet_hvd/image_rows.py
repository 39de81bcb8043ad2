"""Which rows of dimension 0 belong to which image.

In the backbone a row is an image. In the box head a row is a box, and each image has some of
them. BN statistics over K *images* (``bn.size``) must know; the model says it here.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_rows: ContextVar[tuple[int, ...] | None] = ContextVar("rows_per_image", default=None)


@contextmanager
def rows_per_image(counts: Sequence[int] | None) -> Iterator[None]:
    """Within it, image i owns ``counts[i]`` rows, in order. None: a row is an image."""
    token = _rows.set(None if counts is None else tuple(counts))
    try:
        yield
    finally:
        _rows.reset(token)


def current_rows() -> tuple[int, ...] | None:
    """What :func:`rows_per_image` said."""
    return _rows.get()
