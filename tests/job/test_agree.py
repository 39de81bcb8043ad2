"""Whose error is everybody's. Over Horovod: tests/engine."""

import pytest

from megdet_hvd.errors import StorageError, UserError
from megdet_hvd.job.agree import ErrorRecord, error_record, is_agreed, raise_first

BAD, WORSE = ("UserError", "bad"), ("UserError", "worse")
AWAY = ("StorageError", "away")


@pytest.mark.parametrize(
    ("found", "kind", "text"),
    [
        ([None, BAD, WORSE], UserError, "rank 1: bad"),
        ([BAD, WORSE], UserError, "bad"),
        ([AWAY, AWAY], StorageError, "away"),
        ([BAD, None, AWAY], StorageError, "rank 2: away"),
        ([BAD, AWAY], StorageError, "rank 1: away"),  # what rank 0 misses may be its fault
    ],
)
def test_one_ranks_error_is_that_of_all(
    found: list[ErrorRecord | None], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as raised:
        raise_first(found)
    assert str(raised.value) == text and is_agreed(raised.value)


def test_without_an_error_nothing_is_raised() -> None:
    raise_first([error_record(None), None])
    assert error_record(StorageError("away")) == AWAY and error_record(UserError("bad")) == BAD
