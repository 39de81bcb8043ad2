"""Horovod's own store, between two sessions of one job."""

import threading
from collections.abc import Iterator

import pytest
from horovod.runner.common.util.hosts import SlotInfo
from horovod.runner.http.http_client import put_data_into_kvstore
from horovod.runner.http.http_server import RendezvousServer

from megdet_hvd.job import stale_addresses
from megdet_hvd.job.own_store import Slot, slots

MACHINES = ((0, 1, 2), (3, 4))
PLAN = slots(MACHINES)


@pytest.fixture
def port() -> Iterator[int]:
    server = RendezvousServer()
    port = server.start()
    fields = ("hostname", "rank", "local_rank", "cross_rank", "size", "local_size", "cross_size")
    server.init([SlotInfo(*(getattr(slot, name) for name in fields)) for slot in PLAN])
    yield port
    server.stop()


def environ(slot: Slot, port: int) -> dict[str, str]:
    return {
        **slot.variables(),
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
    }


def each(port: int) -> list[tuple[dict[str, str], str, int]]:
    """Every process in each scope that it is in."""
    return [
        (own, scope, place)
        for slot in PLAN
        for own in [environ(slot, port)]
        for scope, place, size in stale_addresses._scopes(own)
        if size > 1
    ]


def there(port: int) -> int:
    return sum(
        stale_addresses._ask(own, "GET", f"/{scope}/{place}") == 200
        for own, scope, place in each(port)
    )


@pytest.mark.parametrize("left", [0, 1, 2, 3, 7, 13])
def test_addresses_of_the_session_before_are_gone(
    port: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of them have told the store that they leave."""
    for _, scope, place in each(port):
        put_data_into_kvstore("127.0.0.1", port, scope, str(place), "address")
    assert there(port) == 5 + 5 + 4
    for own, scope, place in each(port)[:left]:
        stale_addresses._ask(own, "DELETE", f"/{scope}/{place}")
    monkeypatch.setattr(stale_addresses, "_sessions", 100)
    found: list[bool] = []
    ranks = [
        threading.Thread(
            target=lambda slot=slot: found.append(
                stale_addresses.forget_addresses(environ(slot, port))
            )
        )
        for slot in PLAN
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(30)
    assert found == [True] * 5 and there(port) == 0


def test_the_first_session_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stale_addresses, "_sessions", 0)
    assert not stale_addresses.forget_addresses({})
