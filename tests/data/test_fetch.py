"""Downloads against a server on loopback that breaks off, refuses, and sends rubbish."""

import hashlib
import io
import random
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from torchvision.models import get_model_weights

from megdet_hvd.data.__main__ import main
from megdet_hvd.data.fetch.catalogue import BACKBONES, COCO2017, Download, backbone_download
from megdet_hvd.data.fetch.download import download
from megdet_hvd.data.fetch.run import fetch_coco2017, torch_hub_folder
from megdet_hvd.data.fetch.unpack import unpack
from megdet_hvd.errors import UserError

DATA = random.Random(0).randbytes(300_000)
MD5 = "md5:" + hashlib.md5(DATA).hexdigest()


@dataclass
class Server:
    """What the server has, how it misbehaves, and what was asked of it."""

    files: dict[str, bytes]
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which the connection ends, request by request."""
    failures: list[int] = field(default_factory=list)
    """Codes answered before anything else, request by request."""
    length: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server({"/models/x.bin": DATA})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.asked.append((self.path, asked))
            if state.failures:
                self.send_error(state.failures.pop(0))
                return
            data = state.files.get(self.path)
            if data is None:
                self.send_error(404)
                return
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
            if asked and state.ranges and start >= len(data):
                self.send_error(416)
                return
            if asked and state.ranges:
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                start = 0
                self.send_response(200)
            rest = data[start:]
            if state.length:
                self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            if state.cut_after:
                rest = rest[: state.cut_after.pop(0)]
            self.wfile.write(rest)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.port = http.server_port
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def fetch(server: Server, target: Path, **more: Any) -> None:
    options: dict[str, Any] = {"checksum": MD5, "wait_s": 0.0, "attempts": 3} | more
    download(server.url + "/models/x.bin", target, **options)


def test_whole(server: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    fetch(server, tmp_path / "deep" / "x", progress=lambda done, all_: told.append((done, all_)))
    assert (tmp_path / "deep" / "x").read_bytes() == DATA
    assert told[-1] == (len(DATA), len(DATA))
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x"]


@pytest.mark.parametrize("known", [True, False])
def test_carries_on_where_it_broke_off(server: Server, tmp_path: Path, known: bool) -> None:
    server.cut_after = [100_000, 50_000]
    fetch(server, tmp_path / "x", size_bytes=len(DATA) if known else None)
    assert (tmp_path / "x").read_bytes() == DATA
    assert [r for _, r in server.asked] == [None, "bytes=100000-", "bytes=150000-"]


def test_a_later_call_carries_on(server: Server, tmp_path: Path) -> None:
    server.cut_after = [70_000]
    server.failures = []
    with pytest.raises(UserError, match=r"70000 bytes are kept in .*x\.part"):
        server.cut_after = [70_000, 0, 0, 0]
        fetch(server, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    server.cut_after = []
    fetch(server, tmp_path / "x")
    assert server.asked[-1][1] == "bytes=70000-"
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.cut_after = [100_000]
    fetch(server, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert [r for _, r in server.asked] == [None, "bytes=100000-"]


def test_no_length_and_busy_server(server: Server, tmp_path: Path) -> None:
    server.length = False
    server.failures = [503, 429]
    fetch(server, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_wrong_beginning_is_thrown_away_once(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(b"of another file")
    fetch(server, tmp_path / "x")
    assert [r for _, r in server.asked] == ["bytes=15-", None]
    assert (tmp_path / "x").read_bytes() == DATA
    longer = DATA + b"more"
    (tmp_path / "y.part").write_bytes(longer)
    fetch(server, tmp_path / "y")  # 416: nothing beyond; the checksum says what is wrong
    assert (tmp_path / "y").read_bytes() == DATA


def test_rubbish_never_takes_the_name(server: Server, tmp_path: Path) -> None:
    server.files["/models/x.bin"] = b"x" + DATA[1:]
    with pytest.raises(UserError, match=f"{MD5} was expected"):
        fetch(server, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_refused_and_unreachable(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"404 .*--base-url"):
        download(server.url + "/none", tmp_path / "x", checksum=MD5)
    assert len(server.asked) == 1
    server.failures = [500] * 3
    with pytest.raises(UserError, match=r"given up after 3 attempts \(500"):
        fetch(server, tmp_path / "x")
    with pytest.raises(UserError, match=r"given up after 2 attempts .*refused"):
        download("http://127.0.0.1:9/x", tmp_path / "x", checksum=MD5, attempts=2, wait_s=0)


def archive(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in entries.items():
            made.writestr(name, data)
    return buffer.getvalue()


def test_coco_is_fetched_unpacked_and_remembered(server: Server, tmp_path: Path) -> None:
    zips = {
        "annotations": ("annotations/a.zip", {"annotations/instances_val2017.json": b"{}" * 900}),
        "val": ("zips/val2017.zip", {f"val2017/{k}.jpg": bytes([k]) * 5000 for k in range(9)}),
    }
    catalogue = {}
    for part, (path, entries) in zips.items():
        data = archive(entries)
        server.files["/mirror/" + path] = data
        catalogue[part] = Download(
            f"http://images.invalid/{path}", "md5:" + hashlib.md5(data).hexdigest(), len(data)
        )
    said: list[str] = []

    def go(keep: bool = False) -> None:
        fetch_coco2017(
            tmp_path,
            parts=list(zips),
            base_url=server.url + "/mirror/",
            keep_archives=keep,
            say=said.append,
            catalogue=catalogue,
        )

    # Interrupted while unpacking: one file whole, one half.
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / "3.jpg").write_bytes(bytes([3]) * 5000)
    (tmp_path / "val2017" / "4.jpg").write_bytes(bytes([4]) * 17)
    go()
    for _, entries in zips.values():
        for name, data in entries.items():
            assert (tmp_path / name).read_bytes() == data
    assert not list(tmp_path.rglob("*.zip"))
    assert not list(tmp_path.rglob("*.part"))
    assert len(server.asked) == 2
    go()
    assert len(server.asked) == 2
    assert said[-1] == "val2017.zip: already here"


def test_two_at_once_would_mix_up_what_has_arrived(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".fetch.lock"),
        pytest.raises(UserError, match=r"another process is fetching into this folder"),
    ):
        fetch_coco2017(
            tmp_path,
            parts=["annotations"],
            base_url="http://nowhere",
            keep_archives=False,
            say=print,
        )


def test_no_room(tmp_path: Path) -> None:
    huge = {"val": Download("http://images.invalid/v.zip", "md5:0", 10**18)}
    with pytest.raises(UserError, match="GB free, and about 2000000000"):
        fetch_coco2017(
            tmp_path, parts=["val"], base_url=None, keep_archives=False, say=print, catalogue=huge
        )


def test_archives_that_are_damaged_or_reach_outside(tmp_path: Path) -> None:
    file = tmp_path / "a.zip"
    data = bytearray(archive({"in/x": random.Random(1).randbytes(5000)}))
    data[2000] ^= 255
    file.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"a\.zip is damaged"):
        unpack(file, tmp_path / "out")
    assert not (tmp_path / "out" / "in" / "x").exists()
    file.write_bytes(b"PK nothing")
    with pytest.raises(UserError, match="is damaged"):
        unpack(file, tmp_path / "out")
    file.write_bytes(archive({"../escaped": b"x"}))
    with pytest.raises(UserError, match="lies outside"):
        unpack(file, tmp_path / "out")
    assert not (tmp_path / "escaped").exists()
    for name in (str(tmp_path / "escaped"), "in/../../escaped"):
        file.write_bytes(archive({name: b"x"}))
        with pytest.raises(UserError, match="lies outside"):
            unpack(file, tmp_path / "out")
        assert not (tmp_path / "escaped").exists()
    for name in (".val2017.zip.complete", "in/../val2017.zip", "val2017.zip.part"):
        file.write_bytes(archive({name: b"x"}))
        with pytest.raises(UserError, match="kept for downloads"):
            unpack(file, tmp_path / "out")
    file.write_bytes(archive({f"{'n' * 300}.jpg": b"x"}))
    with pytest.raises(UserError, match="File name too long"):
        unpack(file, tmp_path / "out")


def test_backbone_by_command(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    digest = hashlib.sha256(DATA).hexdigest()[:8]
    name = f"resnet50-{digest}.pth"
    monkeypatch.setitem(BACKBONES, ("resnet50", "IMAGENET1K_V1"), name)
    server.files[f"/models/{name}"] = DATA
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch home"))
    arguments = ["fetch", "backbone", "--base-url", server.url]
    assert main(arguments) == 0
    target = tmp_path / "torch home" / "hub" / "checkpoints" / name
    assert capsys.readouterr().out == f"{target}\n"
    assert target.read_bytes() == DATA
    assert main(arguments) == 0
    assert len(server.asked) == 1
    target.write_bytes(DATA[:-1])
    assert main([*arguments, "--to", str(tmp_path / "elsewhere")]) == 0
    assert (tmp_path / "elsewhere" / name).read_bytes() == DATA
    assert main([*arguments, "--weights", "IMAGENET9"]) == 2
    assert "IMAGENET1K_V1" in capsys.readouterr().err
    assert main(["fetch", "coco2017", "--parts", "tests"]) == 2


def test_catalogue_agrees_with_torchvision() -> None:
    published = {
        (backbone, weights.name): weights.url
        for backbone in ("resnet18", "resnet50", "resnet101")
        for weights in get_model_weights(backbone)
    }
    assert published == {key: backbone_download(*key).url for key in BACKBONES}
    assert {item.name for item in COCO2017.values()} == {
        "train2017.zip",
        "val2017.zip",
        "annotations_trainval2017.zip",
    }


def test_hub_folder_is_torchs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    for home, cache in [(None, None), (str(tmp_path), None), (None, str(tmp_path / "c"))]:
        for name, value in [("TORCH_HOME", home), ("XDG_CACHE_HOME", cache)]:
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        assert torch_hub_folder() == Path(torch.hub.get_dir()) / "checkpoints"
