import socket
import threading
from contextlib import ExitStack

from horovod.runner.http.http_server import RendezvousServer

from megdet_hvd.job import own_store
from megdet_hvd.job.own_store import slots, wants_gloo
from megdet_hvd.job.rendezvous import ask_store


def test_slots_of_uneven_machines() -> None:
    """As horovodrun -H a:3,b:1 numbers them, ranks in any order."""
    found = slots(((0, 2, 3), (1,)))
    assert [(s.rank, s.local_rank, s.local_size) for s in found] == [
        (0, 0, 3),
        (1, 0, 1),
        (2, 1, 3),
        (3, 2, 3),
    ]
    assert [(s.cross_rank, s.cross_size) for s in found] == [(0, 2), (1, 2), (0, 1), (0, 1)]
    assert [s.hostname for s in found] == ["machine0", "machine1", "machine0", "machine0"]
    assert found[1].variables()["HOROVOD_SIZE"] == "4"


def test_gloo_is_asked_for_by_either_variable() -> None:
    assert wants_gloo({"HOROVOD_CPU_OPERATIONS": "GLOO"})
    assert wants_gloo({"HOROVOD_CONTROLLER": "gloo"})
    assert not wants_gloo({"HOROVOD_CPU_OPERATIONS": "MPI"}) and not wants_gloo({})


def test_another_listener_is_not_taken_for_rank_0s_store() -> None:
    """127.0.0.2 … 4, say: addresses that rank 0 has too, and that lead elsewhere from here."""
    nonce = b"n" * 32
    with ExitStack() as opened:
        servers = [RendezvousServer(), RendezvousServer()]
        ports = [server.start() for server in servers]
        for server in servers:
            opened.callback(server.stop)
        own, another = ports
        ask_store("127.0.0.1", own, "PUT", own_store._MARK, nonce)
        assert own_store._reachable(["127.0.0.1"], own, nonce) == "127.0.0.1"
        assert own_store._reachable(["127.0.0.1"], another, nonce) is None
        ask_store("127.0.0.1", another, "PUT", own_store._MARK, b"x" * 32)
        assert own_store._reachable(["127.0.0.1"], another, nonce) is None
        silly = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        answer = threading.Thread(
            target=lambda: silly.accept()[0].sendall(b"SSH-2.0-x\r\n"), daemon=True
        )
        answer.start()
        assert own_store._reachable(["127.0.0.1"], silly.getsockname()[1], nonce) is None
