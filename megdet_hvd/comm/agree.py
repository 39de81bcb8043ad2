"""An error of one rank becomes the error of all, so that none is left waiting."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from megdet_hvd.comm.exchange import gather_objects
from megdet_hvd.comm.world import World
from megdet_hvd.errors import UserError

_E = TypeVar("_E", bound=Exception)


def agree(error: UserError | None, world: World, name: str) -> None:
    """Raise on every rank if any rank has an error. All ranks call it together.

    Raises:
        UserError: the text of the lowest such rank; the rank is named where not all have it.
    """
    texts = gather_objects(None if error is None else str(error), world, f"agree.{name}")
    raise_first(texts)


def raise_first(texts: Sequence[str | None]) -> None:
    """Raise the lowest rank's error, given those of all ranks; None: that rank has none.

    Raises:
        UserError: on all ranks that are given the same texts; the rank is named where not all
            have an error.
    """
    first = next((rank for rank, text in enumerate(texts) if text is not None), None)
    if first is None:
        return
    own_problem = any(text is None for text in texts)
    agreed = UserError(f"rank {first}: {texts[first]}" if own_problem else texts[first])
    raise mark_agreed(agreed)


def mark_agreed(error: _E) -> _E:
    """Note that every rank raises this error at the same place, so that all can leave in order."""
    error.agreed = True  # type: ignore[attr-defined]
    return error


def is_agreed(error: BaseException) -> bool:
    """Whether all ranks have this error. Otherwise the others are waiting for this one."""
    return getattr(error, "agreed", False)


@contextmanager
def together(world: World, name: str) -> Iterator[None]:
    """Run a block in which any rank may raise UserError; afterwards all raise, or none.

    The block must not communicate: a rank that raises leaves it early.
    """
    error: UserError | None = None
    try:
        yield
    except UserError as raised:
        error = raised
    agree(error, world, name)
