"""How tests share a machine: launches one after another, all else on every core.

Under pytest-xdist (``make test``) tests that start ranks run in one worker, where those of
``tests/pool.py`` stay up; all others are dealt out one by one. Jobs that hang take no core while
their watchdog waits, and so are a group beside (``xdist_group("hangs")``). A test marked ``alone``
runs while no other does.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FunctionType

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
        if item.get_closest_marker("xdist_group"):
            continue
        if item.get_closest_marker("launch") or (
            isinstance(item, pytest.Function) and any(map(launches, own_functions(item)))
        ):
            item.add_marker(pytest.mark.xdist_group("launch"))


def own_functions(item: pytest.Function) -> Iterator[FunctionType]:
    """The test's, and those of its fixtures."""
    definitions = item._fixtureinfo.name2fixturedefs.values()
    for function in (item.function, *(one.func for many in definitions for one in many)):
        if isinstance(function, FunctionType):
            yield function


def launches(function: FunctionType) -> bool:
    """Whether it, or a function of the tests that it calls, calls one of ``LAUNCHING``."""
    seen: set[FunctionType] = set()
    ahead = [function]
    while ahead:
        one = ahead.pop()
        seen.add(one)
        for code in (one.__code__, *filter(is_code, one.__code__.co_consts)):
            for name in code.co_names:
                called = one.__globals__.get(name)
                module = getattr(called, "__module__", None) or ""
                if module in LAUNCHING and callable(called):
                    return True
                if isinstance(called, FunctionType) and module.startswith("tests."):
                    ahead += [called] if called not in seen else []
    return False


def is_code(value: object) -> bool:
    return isinstance(value, CodeType)


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
