"""An error of one rank becomes the error of all, so that none is left waiting."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from megdet_hvd.errors import StorageError, UserError, text_of
from megdet_hvd.job.exchange import any_rank, gather_objects
from megdet_hvd.job.world import World
from megdet_hvd.storage import as_storage_error

_E = TypeVar("_E", bound=Exception)

ErrorRecord = tuple[str, str]
"""An error as it travels: name of its class, and text."""

_TRAVEL: dict[str, type[UserError] | type[StorageError]] = {
    "UserError": UserError,
    "StorageError": StorageError,
}


def error_record(error: UserError | StorageError | None) -> ErrorRecord | None:
    """An error of one rank, for the others; None: it has none."""
    if error is None:
        return None
    return "StorageError" if isinstance(error, StorageError) else "UserError", text_of(error)


def agree(error: UserError | StorageError | None, world: World, name: str) -> None:
    """Raise on every rank if any rank has an error. All ranks call it together.

    Where none has, as always but once, a single number is sent.

    Raises:
        UserError, StorageError: as :func:`raise_first` chooses.
    """
    if any_rank(error is not None, world, f"agree.{name}"):
        raise_first(gather_objects(error_record(error), world, f"agree.{name}"))


def raise_first(found: Sequence[Sequence[str] | None]) -> None:
    """Raise one rank's error, given those of all ranks (:func:`error_record`); None: it has none.

    Raises:
        UserError, StorageError: on all ranks that are given the same; see :func:`first_error`.
    """
    raise_agreed(first_error(found))


def first_error(found: Sequence[Sequence[str] | None]) -> ErrorRecord | None:
    """One rank's error, of those of all ranks; None: none has any.

    The rank is named where not all have an error. The lowest rank's, but one of storage first: what
    the others miss then may well be its fault.
    """
    ranks = [rank for rank, one in enumerate(found) if one is not None]
    if not ranks:
        return None
    failing = [rank for rank in ranks if (one := found[rank]) and one[0] == "StorageError"]
    first = (failing or ranks)[0]
    one = found[first]
    assert one is not None, "it has an error"
    kind, text = one
    shared = len(ranks) == len(found) and len(failing) in (0, len(found))
    return kind, text if shared else f"rank {first}: {text}"


def raise_agreed(record: Sequence[str] | None) -> None:
    """Raise the error that all ranks were given; None: there is none.

    Raises:
        UserError, StorageError: on all of them.
    """
    if record is not None:
        kind, text = record
        raise mark_agreed(_TRAVEL[kind](text))


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

    So it is with StorageError, and with an OSError of storage that fails for the moment. The block
    must not communicate: a rank that raises leaves it early.
    """
    error: UserError | StorageError | None = None
    try:
        yield
    except (UserError, StorageError, OSError) as raised:
        known = as_storage_error(raised)
        if not isinstance(known, UserError | StorageError):
            raise
        error = known
    agree(error, world, name)
