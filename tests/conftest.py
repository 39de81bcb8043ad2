"""How tests share a machine: launches one after another, all else on every core.

Under pytest-xdist (``make test``) tests that start processes of their own run in one worker, where
the ranks of ``tests/pool.py`` stay up; all others are dealt out one by one. A test marked ``alone``
runs while no other does.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))

# Before torch is imported. A thread that waits for others spins otherwise, and takes the core that
# they need: three steps of a small training took 11 s of the processor instead of 2 on busy cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if WORKERS > 1:  # each core has a worker already
    os.environ.setdefault("OMP_NUM_THREADS", "1")

LAUNCHING = ("tests.ranks", "tests.pool")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("launch") or imports_launches(item):
            item.add_marker(pytest.mark.xdist_group("launch"))


def imports_launches(item: pytest.Item) -> bool:
    """Whether its file has something of ``tests.ranks`` or ``tests.pool`` that can be called."""
    module = getattr(item, "module", None)
    values = [] if module is None else [*vars(module).values()]
    return any(callable(v) and getattr(v, "__module__", None) in LAUNCHING for v in values)


@pytest.fixture(autouse=True)
def turn(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Waits for one that runs alone, or for all others before a test that does."""
    if WORKERS == 1:
        yield
        return
    shared = tmp_path_factory.getbasetemp().parent
    kind = fcntl.LOCK_EX if request.node.get_closest_marker("alone") else fcntl.LOCK_SH
    with locked(shared / "next", fcntl.LOCK_EX):  # who waits for all others goes before them
        room = locked(shared / "room", kind)
        room.__enter__()
    try:
        yield
    finally:
        room.__exit__(None, None, None)


@contextmanager
def locked(file: Path, kind: int) -> Iterator[None]:
    with file.open("a") as opened:
        fcntl.flock(opened, kind)
        yield


@pytest.fixture(scope="session", autouse=True)
def pools() -> Iterator[None]:
    """Ranks that stayed up end with the session."""
    yield
    from tests.pool import close_pools

    close_pools()
