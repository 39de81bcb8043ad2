"""Fetching what the catalogue lists."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from megdet_hvd.data.fetch.catalogue import BACKBONES, COCO2017, Download, backbone_download
from megdet_hvd.data.fetch.download import DownloadProgress, digest, download
from megdet_hvd.data.fetch.unpack import unpack
from megdet_hvd.errors import UserError

Say = Callable[[str], None]


def fetch_coco2017(
    folder: Path,
    *,
    parts: Sequence[str],
    base_url: str | None,
    keep_archives: bool,
    say: Say,
    catalogue: dict[str, Download] | None = None,
) -> None:
    """COCO 2017 into ``folder``: annotations/, train2017/, val2017/.

    A part that is complete, as a marker in the folder says, is not fetched again.

    Raises:
        UserError: no room, or a download or archive that fails.
    """
    items = catalogue or COCO2017
    wanted = [items[part] for part in parts if not _marker(folder, items[part]).exists()]
    for part in parts:
        if items[part] not in wanted:
            say(f"{items[part].name}: already here")
    folder.mkdir(parents=True, exist_ok=True)
    _require_room(folder, wanted)
    with _alone(folder):
        for item in wanted:
            archive = folder / item.name
            _fetch(item, archive, base_url, say)
            say(f"{item.name}: unpacking into {folder}")
            count = unpack(archive, folder)
            _marker(folder, item).write_text(f"{item.checksum} {count} files\n", encoding="utf-8")
            say(f"{item.name}: {count} files in place")
            if not keep_archives:
                archive.unlink()


def fetch_backbone(
    folder: Path, backbone: str, weights: str, *, base_url: str | None, say: Say
) -> Path:
    """ImageNet weights of a backbone, as torchvision publishes them; returns the file.

    Raises:
        UserError: a download that fails.
    """
    try:
        item = backbone_download(backbone, weights)
    except KeyError:
        known = ", ".join(name for model, name in BACKBONES if model == backbone)
        raise UserError(
            f"--weights {weights}: torchvision's names for {backbone} are {known}"
        ) from None
    target = folder / item.name
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        _fetch(item, target, base_url, say)
    return target


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """What has arrived keeps its name for a later call to carry on: two at once would mix it up.

    Raises:
        UserError: another process fetches into this folder.
    """
    lock = FileLock(folder / ".fetch.lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{folder}: another process is fetching into this folder; wait for its end"
        ) from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        lock.release()


def torch_hub_folder() -> Path:
    """Where PyTorch looks for weights by name: its own rule, without importing it."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def _fetch(item: Download, target: Path, base_url: str | None, say: Say) -> None:
    if target.exists() and digest(target, item.checksum) == item.checksum:
        say(f"{item.name}: already here, checksum right")
        return
    url = item.at(base_url)
    say(f"{item.name}: fetching {url}")
    download(
        url,
        target,
        checksum=item.checksum,
        size_bytes=item.size_bytes,
        progress=_said_every(5.0, item.name, say),
    )
    say(f"{item.name}: complete, {item.checksum}")


def _marker(folder: Path, item: Download) -> Path:
    return folder / f".{item.name}.complete"


def _require_room(folder: Path, items: Sequence[Download]) -> None:
    # Pictures and JSON archives unpack to at most about four times their size (JSON); pictures
    # hardly grow. Archives go one by one, so the largest counts once more.
    sizes = [item.size_bytes or 0 for item in items]
    need = sum(sizes) + max(sizes, default=0)
    free = shutil.disk_usage(folder).free
    if free < need:
        raise UserError(
            f"{folder} has {free / 1e9:.1f} GB free, and about {need / 1e9:.1f} GB are needed; "
            f"choose another place with --to"
        )


def _said_every(seconds: float, name: str, say: Say) -> DownloadProgress:
    began, last = time.monotonic(), time.monotonic()
    first: int | None = None

    def tell(done: int, total: int | None) -> None:
        nonlocal last, first
        first = done if first is None else first
        now = time.monotonic()
        if now - last < seconds:
            return
        last = now
        rate = (done - first) / max(now - began, 1e-9)
        share = f" of {total / 1e6:.0f} MB" if total else " MB"
        left = f", {(total - done) / rate / 60:.0f} min left" if total and rate > 0 else ""
        say(f"{name}: {done / 1e6:.0f}{share}, {rate / 1e6:.1f} MB/s{left}")

    return tell
