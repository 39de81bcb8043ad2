"""The launcher's store, served on loopback by Horovod's own server."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from horovod.runner.common.util import codec
from horovod.runner.http.http_server import KVStoreServer

from megdet_hvd.errors import RunError, UserError
from megdet_hvd.job import rendezvous


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


class Evil:
    """Whoever unpickles it, writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def key_file(folder: Path, key: str, mode: int = 0o600) -> str:
    path = folder / f"key {mode:o} {len(key)}"
    path.write_text(f"{key}\n")
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("key", [None, "the job's own"])
@pytest.mark.parametrize("body", ["pickle", "forged"])
def test_what_a_stranger_puts_there_is_not_run(
    store: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    body: str,
    key: str | None,
) -> None:
    monkeypatch.setattr(rendezvous, "_scope", lambda: "one")
    content = codec.dumps_base64([Evil(tmp_path / "ran"), 1], to_ascii=False)
    port = int(store["HOROVOD_GLOO_RENDEZVOUS_PORT"])
    if body == "pickle":
        rendezvous.ask_store("127.0.0.1", port, "PUT", "one/all", content)
    else:
        stranger = {**store, "HOROVOD_SECRET_KEY": "another"}
        rendezvous._put(stranger, "one", "all", ["false", "false"])
    environ = store if key is None else {**store, "MEGDET_KEY_FILE": key_file(tmp_path, key)}
    with pytest.raises(RunError, match="no process of this job has put there"):
        rendezvous.meet("here", 1, 2, environ, wait_s=5)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("said", [None, [], {"a": 1}, ["one"], "ab"])
def test_another_shape_than_a_list_of_all_is_refused(
    store: dict[str, str], monkeypatch: pytest.MonkeyPatch, said: object
) -> None:
    monkeypatch.setattr(rendezvous, "_scope", lambda: "one")
    rendezvous._put(store, "one", "all", said)
    with pytest.raises(RunError, match="no process of this job"):
        rendezvous.meet("here", 1, 2, store, wait_s=5)


def test_rank_0_takes_its_own_value_from_nobody(
    store: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "_scope", lambda: "one")
    rendezvous._put(store, "one", "1", "other")
    put = rendezvous._put

    def changed(environ: Any, scope: str, key: str, value: Any) -> None:
        put(environ, scope, key, "false" if key == "0" else value)

    monkeypatch.setattr(rendezvous, "_put", changed)
    assert rendezvous.meet("own", 0, 2, store) == ["own", "other"]


def test_a_value_is_believed_in_its_own_place_only(store: dict[str, str]) -> None:
    rendezvous._put(store, "one", "0", "value")
    port = int(store["HOROVOD_GLOO_RENDEZVOUS_PORT"])
    content = rendezvous.ask_store("127.0.0.1", port, "GET", "one/0")
    rendezvous.ask_store("127.0.0.1", port, "PUT", "one/1", content)
    assert rendezvous._get(store, "one", "0") == ("value",)
    with pytest.raises(RunError, match="one/1"):
        rendezvous._get(store, "one", "1")


def test_the_same_key_is_believed(store: dict[str, str], tmp_path: Path) -> None:
    mine = {**store, "MEGDET_KEY_FILE": key_file(tmp_path, "k")}
    theirs = {**store, "_HOROVOD_SECRET_KEY": "k"}
    rendezvous._put(mine, "one", "0", 7)
    assert rendezvous._get(mine, "one", "0") == rendezvous._get(theirs, "one", "0") == (7,)
    with pytest.raises(RunError, match="different keys"):
        rendezvous._get(store, "one", "0")


def test_a_key_that_is_none(store: dict[str, str], tmp_path: Path) -> None:
    for path, said in (
        (key_file(tmp_path, "k", 0o644), "others can read it"),
        (key_file(tmp_path, ""), "is empty"),
        (str(tmp_path / "none"), "can't be read"),
    ):
        with pytest.raises(UserError, match=said):
            rendezvous._put({**store, "MEGDET_KEY_FILE": path}, "one", "0", 7)


def test_no_proxy_is_asked(store: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    rendezvous._put(store, "one", "0", 7)
    assert rendezvous._get(store, "one", "0") == (7,)
    assert rendezvous._get(store, "one", "1") is None


def test_a_store_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_AGAIN_S", (0.0,))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    gone = {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port)}
    with pytest.raises(RunError, match=f"store at 127.0.0.1:{port} does not answer"):
        rendezvous.meet("here", 1, 2, gone)


def test_alone_nothing_is_asked() -> None:
    assert rendezvous.meet("here", 0, 1, {}) == ["here"]


def test_questions_to_the_store_grow_with_the_ranks_and_not_with_their_square(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rank 0 waits for the first of 127, and then finds all: a question for each and each pause."""
    there: dict[str, bytes] = {}
    asked: list[str] = []
    paused: list[float] = []

    def answer(environ: Any, method: str, path: str, body: bytes | None = None) -> bytes | None:
        if method == "PUT" and body is not None:
            there[path] = body
            return None
        asked.append(path)
        return there.get(path)

    def wait(seconds: float) -> None:
        paused.append(seconds)
        if len(paused) == 10:
            for other in range(1, 128):
                rendezvous._put({}, "one", str(other), other)
            rendezvous._put({}, "one", "all", list(range(128)))

    monkeypatch.setattr(rendezvous, "_scope", lambda: "one")
    monkeypatch.setattr(rendezvous, "_ask", answer)
    monkeypatch.setattr(time, "sleep", wait)
    assert rendezvous.meet(0, 0, 128, {}) == list(range(128))
    assert len(asked) == 10 + 127
    there.clear()
    asked.clear()
    paused.clear()
    assert rendezvous.meet(5, 5, 128, {}) == list(range(128))
    assert 128 * len(asked) / sum(paused) <= 1.2 * rendezvous._ASKED_A_SECOND
