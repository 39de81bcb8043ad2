"""The launcher's store, served on loopback by Horovod's own server."""

import threading
from collections.abc import Iterator

import pytest
from horovod.runner.http.http_server import KVStoreServer

from megdet_hvd.comm import rendezvous
from megdet_hvd.errors import RunError


@pytest.fixture
def store() -> Iterator[dict[str, str]]:
    server = KVStoreServer(verbose=0)
    port = server.start_server()
    yield {
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
    }
    server.shutdown_server()


def test_everyone_learns_of_everyone(
    store: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "_scope", lambda: "one")
    found: dict[int, list[object]] = {}

    def come(rank: int) -> None:
        found[rank] = rendezvous.meet((rank, "host"), rank, 3, store)

    threads = [threading.Thread(target=come, args=(rank,)) for rank in (2, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == {key: [(0, "host"), (1, "host"), (2, "host")] for key in range(3)}


def test_a_second_meeting_does_not_find_the_first(store: dict[str, str]) -> None:
    assert rendezvous._scope() != rendezvous._scope()


def test_the_missing_are_named(store: dict[str, str]) -> None:
    with pytest.raises(RunError, match=r"ranks \[1, 2\] did not start"):
        rendezvous.meet("here", 0, 3, store, wait_s=0.3)


def test_alone_nothing_is_asked() -> None:
    assert rendezvous.meet("here", 0, 1, {}) == ["here"]
