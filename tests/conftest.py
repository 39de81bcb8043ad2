"""How tests share a machine.

Under pytest-xdist (``make test``) tests that hand checks to ``tests/pool.py`` run in one worker,
where the ranks stay up. Those that launch jobs of their own run in another, one after another: they
wait as much as they compute, for launchers and watchdogs. All others are dealt out one by one. A
test marked ``alone`` runs while no other does.
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
# Memory that a step gives back is the next one's. Else the kernel takes it and hands it out anew,
# page by page: a third of the kernel's time, which was a quarter of all.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(256 << 20))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(512 << 20))
if WORKERS > 1:  # each core has a worker already
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        group = group_of(item)
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))
    # While one that runs alone waits for a long test of another worker, nothing else is begun: so
    # they come first, when none is under way.
    items.sort(key=lambda item: item.get_closest_marker("alone") is None)


def group_of(item: pytest.Item) -> str | None:
    """``pools``, ``launches``, or None: it starts no ranks."""
    found = {"tests.ranks"} if item.get_closest_marker("launch") else set()
    if isinstance(item, pytest.Function):
        for function in own_functions(item):
            found |= called_modules(function)
    if "tests.pool" in found:
        return "pools"
    return "launches" if "tests.ranks" in found else None


def own_functions(item: pytest.Function) -> Iterator[FunctionType]:
    """The test's, and those of its fixtures."""
    definitions = item._fixtureinfo.name2fixturedefs.values()
    for function in (item.function, *(one.func for many in definitions for one in many)):
        if isinstance(function, FunctionType):
            yield function


def called_modules(function: FunctionType) -> set[str]:
    """Modules of what it calls, and of what functions of the tests that it calls do."""
    modules: set[str] = set()
    seen: set[FunctionType] = set()
    ahead = [function]
    while ahead:
        one = ahead.pop()
        if one in seen:
            continue
        seen.add(one)
        for code in (one.__code__, *filter(is_code, one.__code__.co_consts)):
            for name in code.co_names:
                called = one.__globals__.get(name)
                module = getattr(called, "__module__", None) or ""
                if isinstance(called, FunctionType) and module.startswith("tests."):
                    modules.add(module)
                    ahead.append(called)
    return modules


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
