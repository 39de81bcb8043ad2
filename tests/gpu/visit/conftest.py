from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _gpu() -> Iterator[None]:
    """The program of a visit is tried without a GPU."""
    yield
