"""The rendered scenes on disk: made once, whole or not at all, and checked before use.

A set is rendered into a temporary folder and renamed when complete, so a folder with the final
name holds a whole set. A lock keeps other processes, other jobs' too, from rendering it at the
same time; where a file system has no locks, the first to rename wins and the others take its
set, which has the same bytes.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from megdet_hvd.config.paths import expand_path
from megdet_hvd.config.schema import ScenesConfig
from megdet_hvd.data.cache_root import cache_root
from megdet_hvd.data.scenes.scene import VERSION, render
from megdet_hvd.data.scenes.shapes import CLASSES
from megdet_hvd.data.source import PictureSource
from megdet_hvd.errors import UserError
from megdet_hvd.storage import cannot_keep, cannot_read, is_transient, retried

log = logging.getLogger(__name__)

JPEG_QUALITY = 92
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ScenesSet:
    """A complete set on disk."""

    folder: Path
    """Holds annotations/, train/, val/ and manifest.json."""
    train: PictureSource
    """Training scenes."""
    val: PictureSource
    """Validation scenes."""


def scenes_folder(config: ScenesConfig) -> Path:
    """The folder a set of these settings is kept in; the name says what is in it."""
    auto = config.cache == "auto"
    root = cache_root() if auto else expand_path(config.cache, "data.scenes.cache")
    name = f"scenes-v{VERSION}-{config.size}px-{config.train_images}-{config.val_images}"
    return root / name


def ensure_scenes(config: ScenesConfig, *, render: bool = True) -> ScenesSet:
    """The set of these settings, rendered first if it is not there or not whole.

    Args:
        config: how many scenes, how large, and where they are kept.
        render: False: only use what is there (the processes that waited for another's work).

    Raises:
        UserError: the folder cannot be written, or nothing is there and ``render`` is False.
        StorageError: it can't be read or written at the moment, or its disk is full.
    """
    folder = scenes_folder(config)
    fault = _fault(folder)
    if fault and not render:
        raise UserError(
            f"the rendered scenes are not in {folder} ({fault}): the process that renders them "
            f"failed, or its cache folder is not this one; set MEGDET_CACHE or data.scenes.cache "
            f"to a folder that all processes of the machine share"
        )
    if fault:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _locked(folder.with_name(folder.name + ".lock")):
                if fault := _fault(folder):  # another process may have finished meanwhile
                    _make(config, folder, fault)
        except OSError as error:
            raise cannot_keep(
                f"the rendered scenes cannot be kept in {folder}",
                error,
                "set MEGDET_CACHE or data.scenes.cache to a folder that can be written",
            ) from error
    return ScenesSet(folder, _source(folder, "train"), _source(folder, "val"))


def _source(folder: Path, split: str) -> PictureSource:
    return PictureSource(folder / "annotations" / f"{split}.json", folder / split)


def _make(config: ScenesConfig, folder: Path, fault: str) -> None:
    total = config.train_images + config.val_images
    log.info("rendering %d scenes into %s (once; %s)", total, folder, fault)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        made = Path(scratch) / "set"
        (made / "annotations").mkdir(parents=True)
        manifest: dict[str, str] = {}
        for split, count in (("train", config.train_images), ("val", config.val_images)):
            content, files = _split(split, count, config.size)
            (made / split).mkdir()
            for name, data in files.items():
                _write(made, f"{split}/{name}", data, manifest)
            text = json.dumps(content, separators=(",", ":")).encode()
            _write(made, f"annotations/{split}.json", text, manifest)
        (made / _MANIFEST).write_text(
            json.dumps({"sha256": manifest}, indent=0) + "\n", encoding="utf-8"
        )
        if folder.exists():  # not whole, says _fault
            shutil.move(folder, Path(scratch) / "damaged")
        try:
            made.rename(folder)
        except OSError:
            if _fault(folder):
                raise


def _write(root: Path, name: str, data: bytes, manifest: dict[str, str]) -> None:
    (root / name).write_bytes(data)
    manifest[name] = hashlib.sha256(data).hexdigest()


def _split(split: str, count: int, size: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    files: dict[str, bytes] = {}
    for number in range(count):
        scene = render(split, number, size)
        name = f"{number:06d}.jpg"
        buffer = BytesIO()
        scene.picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        files[name] = buffer.getvalue()
        width, height = scene.picture.size
        images.append({"id": number + 1, "file_name": name, "width": width, "height": height})
        for item in scene.objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": item.label,
                    "bbox": list(item.box),
                    "area": item.area,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": k, "name": name} for k, name in enumerate(CLASSES, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return content, files


def _fault(folder: Path) -> str | None:
    """Why a folder is not a whole set; None if it is.

    Raises:
        StorageError: it can't be read at the moment, which is no reason to make it anew.
    """
    try:
        manifest = json.loads(_bytes_of(folder / _MANIFEST))["sha256"]
    except FileNotFoundError:
        return "there is none yet" if not folder.exists() else "it has no manifest"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its manifest is unreadable: {error}"
    for name, digest in manifest.items():
        try:
            if hashlib.sha256(_bytes_of(folder / name)).hexdigest() != digest:
                return f"{name} is damaged"
        except OSError as error:
            return f"{name}: {error.strerror}"
    return None


def _bytes_of(file: Path) -> bytes:
    try:
        return retried(file.read_bytes)
    except OSError as error:
        if is_transient(error):
            raise cannot_read(file, error) from error
        raise


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a", encoding="utf-8") as file:
        with contextlib.suppress(OSError):  # a file system without locks: see the top
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
