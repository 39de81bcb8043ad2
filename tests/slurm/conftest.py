"""One cluster for all tests of this folder, and all their scenarios side by side."""

import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.lab import Lab, Scenario
from tests.slurm.mini_cluster import MiniCluster, why_not

LIMIT_S = 1700
"""For all of them together: the first test waits while the others run too."""
ALL_END_S = 1600
"""When scenarios stop waiting, so that each can say what it waited for."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if scenario_of(item) is not None:
            item.add_marker(pytest.mark.timeout(LIMIT_S))


@pytest.fixture(scope="session")
def cluster() -> Iterator[MiniCluster]:
    problem = why_not()
    if problem is not None:
        if os.environ.get("MEGDET_NEED_SLURM"):
            pytest.fail(problem)
        pytest.skip(problem)
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        cluster = MiniCluster(Path(folder))
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="session")
def running(
    request: pytest.FixtureRequest, cluster: MiniCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Scenario, Future[None]]]:
    """The scenarios of all selected tests, started together; Slurm queues their jobs."""
    found = [s for item in request.session.items if (s := scenario_of(item)) is not None]
    base = tmp_path_factory.mktemp("lab")
    end_s = time.monotonic() + ALL_END_S
    with ThreadPoolExecutor(max(1, len(found))) as pool:
        yield {s: pool.submit(s, Lab(cluster, base / s.__name__, end_s)) for s in found}


def scenario_of(item: pytest.Item) -> Scenario | None:
    function: Any = getattr(item, "function", None)
    return getattr(function, "scenario", None)
