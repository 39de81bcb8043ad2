"""What fails for the moment is tried again, and never taken for damage or a user's mistake."""

import errno
import io
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from megdet_hvd import storage
from megdet_hvd.checkpoint.facts import read_facts
from megdet_hvd.checkpoint.file import is_sound, load_checkpoint, read_torch_file, save_checkpoint
from megdet_hvd.checkpoint.naming import list_checkpoints
from megdet_hvd.checkpoint.recovery import newest_sound_checkpoint
from megdet_hvd.checkpoint.retention import mark_best
from megdet_hvd.checkpoint.zip_check import DamagedFileError, check_sums
from megdet_hvd.config.load import load_config
from megdet_hvd.data.__main__ import main as data_command
from megdet_hvd.data.annotations import read_annotation_file
from megdet_hvd.data.coco import read_sources
from megdet_hvd.data.scenes import cache
from megdet_hvd.data.source import PictureSource
from megdet_hvd.data.transforms import UnreadablePicture, decode
from megdet_hvd.errors import RunError, StorageError, UserError, exit_code_of
from megdet_hvd.model.weights_file import read_weights
from megdet_hvd.preflight.readable import read_share
from megdet_hvd.slurm_job.record import append, read
from megdet_hvd.staging.source import look_at
from megdet_hvd.storage import (
    PAUSES_S,
    ReadFile,
    as_storage_error,
    cannot_keep,
    is_transient,
    retried,
)
from tests.checkpoint.test_file import state
from tests.failing_storage import failing

MOMENT = (errno.ESTALE, errno.EIO, errno.EMFILE)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PAUSES_S", (0.0,) * len(PAUSES_S))


def coco(folder: Path) -> PictureSource:
    folder.mkdir()
    Image.new("RGB", (8, 6), (10, 20, 30)).save(folder / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 4, 3]}],
        "categories": [{"id": 3, "name": "x"}],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return PictureSource(folder / "a.json", folder)


def everything(folder: Path) -> dict[str, tuple[str, str, Callable[[], Any]]]:
    """Each reader: whose failing it suffers (end of a path), of which call, and the reader."""
    source = coco(folder / "set")
    checkpoint = folder / "checkpoints" / "iteration_00000001.pt"
    save_checkpoint(checkpoint, state(1))
    torch.save({"w": torch.arange(3.0)}, folder / "weights.pt")
    (folder / "c.yaml").write_text("seed: 7\n")
    append(folder, "start", job=4)
    config = load_config(
        None,
        [
            "data.kind=coco",
            f"data.train=[{{annotations: '{source.annotations}', images: '{source.images}'}}]",
            "data.val=[]",
        ],
    )

    def index() -> Any:
        return read_sources([source], keep_empty=True, invalid_boxes="stop").file_names

    return {
        "checkpoint": (".pt", "open", lambda: load_checkpoint(folder)["iteration"]),
        "checkpoint looked at": (".pt", "stat", lambda: load_checkpoint(folder)["iteration"]),
        "checkpoints listed": ("checkpoints", "list", lambda: load_checkpoint(folder)["iteration"]),
        "facts": (".pt", "open", lambda: read_facts(checkpoint)["iteration"]),
        "weights": ("weights.pt", "open", lambda: read_weights(folder / "weights.pt", "x")["w"][2]),
        "picture": ("a.png", "open", lambda: np.asarray(decode(folder / "set" / "a.png")).sum()),
        "annotations": (
            "a.json",
            "open",
            lambda: read_annotation_file(source.annotations).raw_boxes[0, 2],
        ),
        "pictures listed": ("set", "list", index),
        "configuration": ("c.yaml", "open", lambda: load_config(folder / "c.yaml", []).seed),
        "preflight's annotations": ("a.json", "open", lambda: read_share(config.data, 0, 1)),
        "preflight's pictures": ("a.png", "stat", lambda: read_share(config.data, 0, 1)),
        "staged folder": ("set", "list", lambda: look_at(source.images).identity),
        "staged file": ("a.png", "stat", lambda: look_at(source.images).identity),
    }


NAMES = [
    "checkpoint",
    "checkpoint looked at",
    "checkpoints listed",
    "facts",
    "weights",
    "picture",
    "annotations",
    "pictures listed",
    "configuration",
    "preflight's annotations",
    "preflight's pictures",
    "staged folder",
    "staged file",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_moment_is_sat_out_and_a_lasting_failure_is_no_mistake_of_the_users(
    name: str, tmp_path: Path
) -> None:
    readers = everything(tmp_path)
    assert list(readers) == NAMES
    ending, calls, reader = readers[name]
    right = reader()
    for number in MOMENT:
        with failing(ending, number, 1, calls) as once:
            assert reader() == right
        assert once.met == 1
        with failing(ending, number, math.inf, calls) as lasting:
            with pytest.raises((StorageError, OSError)) as raised:
                reader()
            known = as_storage_error(raised.value)
            assert isinstance(known, StorageError), raised.value
            assert exit_code_of(known) == 6
            assert lasting.met > len(PAUSES_S)
            assert ending in str(known)
    with failing(ending, errno.EACCES, math.inf, calls):
        with pytest.raises((UserError, OSError, UnreadablePicture)) as raised:
            told = reader()
            assert "preflight" in name and told[1] is not None
            raise UserError(told[1])
        assert not isinstance(as_storage_error(raised.value), StorageError)


def test_a_disk_that_cannot_be_read_is_not_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``zipfile`` and torch turn an error in mid-file into "not a zip file" and the like."""
    path = tmp_path / "checkpoints" / "iteration_00000001.pt"
    save_checkpoint(path, state(1))
    size = path.stat().st_size
    true = ReadFile.read

    class Half(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            if self.tell() > size // 2 or len(buffer) > size // 2:
                raise OSError(errno.EIO, "Input/output error")
            return super().readinto(buffer)

    def opened(self: ReadFile, path: Path) -> None:
        self._file, self.error = io.BufferedReader(Half(path), 64), None

    monkeypatch.setattr(ReadFile, "__init__", opened)
    with pytest.raises(OSError, match="Input/output") as raised:
        check_sums(path)
    assert not isinstance(raised.value, zipfile.BadZipFile)
    with pytest.raises(OSError, match="Input/output"):
        newest_sound_checkpoint(tmp_path)
    for reader in (read_torch_file, read_facts, lambda p: read_weights(p, "x")):
        with pytest.raises(StorageError, match="Input/output"):
            reader(path)
    assert not is_sound(path), "nobody knows"
    monkeypatch.setattr("megdet_hvd.checkpoint.file.check_sums", lambda path: None)
    with pytest.raises(StorageError, match="Input/output"):  # torch's own reading
        read_torch_file(path)
    assert true is ReadFile.read
    monkeypatch.undo()
    path.write_bytes(path.read_bytes()[: size // 2])
    with pytest.raises(DamagedFileError):
        read_torch_file(path)


def test_a_damaged_picture_stays_unreadable(tmp_path: Path) -> None:
    """Pillow raises OSError for those as well, without a number."""
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(buffer, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[:-400])
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(UnreadablePicture, match="truncated"):
        decode(tmp_path / "cut.jpg")
    with pytest.raises(UnreadablePicture, match="not a picture"):
        decode(tmp_path / "text.jpg")
    with pytest.raises(UnreadablePicture, match="No such file"):
        decode(tmp_path / "absent.jpg")
    (tmp_path / "eio.jpg").symlink_to("/proc/self/mem")  # the system's own EIO
    with pytest.raises(StorageError, match=r"eio\.jpg.*Input/output"):
        decode(tmp_path / "eio.jpg")


def test_scenes_are_not_made_anew_because_they_could_not_be_read(tmp_path: Path) -> None:
    config = load_config(
        None,
        [
            "data.scenes.train_images=2",
            "data.scenes.val_images=1",
            "data.scenes.size=64",
            f"data.scenes.cache={tmp_path}",
        ],
    ).data.scenes
    folder = cache.ensure_scenes(config).folder
    before = folder.stat().st_ino
    for ending in ("manifest.json", "000001.jpg"):
        with failing(ending, errno.ESTALE, math.inf), pytest.raises(StorageError, match=ending):
            cache.ensure_scenes(config)
        with failing(ending, errno.ESTALE, 1) as once:
            cache.ensure_scenes(config)
        assert once.met == 1
    assert folder.stat().st_ino == before
    (folder / "manifest.json").unlink()
    with (
        failing(folder.name + ".lock", errno.ENOSPC, math.inf),
        pytest.raises(StorageError, match=r"No space left.*MEGDET_CACHE"),
    ):
        cache.ensure_scenes(config)


def test_writing_is_tried_again_too(tmp_path: Path) -> None:
    path = tmp_path / "iteration_00000001.pt"
    with failing(".tmp", errno.ESTALE, 1) as once:
        save_checkpoint(path, state(1))
    assert once.met == 1 and load_checkpoint(path)["iteration"] == 1
    with failing(".tmp", errno.EIO, math.inf), pytest.raises(StorageError, match="cannot be writ"):
        save_checkpoint(path, state(2))
    with failing(".tmp", errno.ENOSPC, math.inf), pytest.raises(UserError, match="Free some space"):
        save_checkpoint(path, state(2))
    assert load_checkpoint(path)["iteration"] == 1
    mark_best(path)
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["best.pt", path.name]


def test_what_nobody_took_care_of(tmp_path: Path) -> None:
    with failing("checkpoints", errno.ESTALE, math.inf, "list"):
        (tmp_path / "checkpoints").mkdir()
        with pytest.raises(OSError) as raised:
            list_checkpoints(tmp_path / "checkpoints")
    known = as_storage_error(raised.value)
    assert isinstance(known, StorageError) and str(tmp_path / "checkpoints") in str(known)
    assert known.__cause__ is raised.value
    without_name = OSError(errno.EIO, "Input/output error")
    assert isinstance(as_storage_error(without_name), StorageError)
    by_number = OSError(errno.EIO, "Input/output error", 5)  # of a file that was opened already
    assert isinstance(as_storage_error(by_number), StorageError)
    for other in (
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),  # of a socket
        OSError(errno.ENOSPC, "No space left on device", "x"),
        FileNotFoundError(errno.ENOENT, "No such file", "x"),
        OSError("image file is truncated"),
        ValueError("x"),
    ):
        assert as_storage_error(other) is other
    assert [exit_code_of(e("x")) for e in (UserError, RunError, StorageError)] == [2, 3, 6]
    full = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert isinstance(cannot_keep("x", full, "y"), StorageError)
    assert isinstance(cannot_keep("x", PermissionError(errno.EACCES, "no"), "y"), UserError)


def test_other_errors_are_not_tried_again() -> None:
    tries = []

    def work() -> None:
        tries.append(1)
        raise FileNotFoundError(errno.ENOENT, "No such file")

    with pytest.raises(FileNotFoundError):
        retried(work)
    assert len(tries) == 1 and not is_transient(ValueError("x"))


def test_the_checker_says_that_it_can_say_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = coco(tmp_path / "set")
    (tmp_path / "set" / "a.png").unlink()
    (tmp_path / "set" / "a.png").symlink_to("/proc/self/mem")
    words = ["check", str(source.annotations), "--images", str(source.images)]
    assert data_command(words) == 6
    assert "Input/output error" in capsys.readouterr().err


def test_a_jobs_records_are_looked_for_again(tmp_path: Path) -> None:
    append(tmp_path, "start", job=4)
    with failing("jobs.jsonl", errno.ESTALE, 2) as twice:
        assert [one["job"] for one in read(tmp_path)] == [4]
    assert twice.met == 2
