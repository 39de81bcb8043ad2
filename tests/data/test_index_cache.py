"""An index that is kept says what the annotation files say, or is made anew."""

import errno
import hashlib
import json
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal
from unittest.mock import Mock

import numpy as np
import pytest

from megdet_hvd.bench.index_set import make_set
from megdet_hvd.config.schema import AnnotationSource, DataConfig
from megdet_hvd.data import stamps
from megdet_hvd.data.coco import examine, read_sources
from megdet_hvd.data.disks import _mounts, kind_at
from megdet_hvd.data.factory import open_datasets, open_validation
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.index_cache import arrays, cache, folder, records, stored
from megdet_hvd.data.index_cache.cache import HowToRead, read_kept
from megdet_hvd.data.index_cache.names import NameTable
from megdet_hvd.data.source import PictureSource, expand_source
from megdet_hvd.errors import StorageError, UserError
from megdet_hvd.pipeline.place import content_digest
from tests.data.made import CATEGORIES, REAL, box, image, real_data, write_set

CASES = REAL.parent / "cases"
TRAIN = HowToRead(keep_empty=False, invalid_boxes="stop")
VAL = HowToRead(keep_empty=True, invalid_boxes="drop", purpose="val")


@pytest.fixture(autouse=True)
def every_file_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "WORTH_IT_BYTES", 0)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are believed at once, as if they had lain there for long."""
    monkeypatch.setattr(stamps, "SETTLED_S", -3600.0)


def some_set(place: Path, **more: Any) -> PictureSource:
    boxes = [box(k, k % 3 + 1, [k, 1, 5, 5], 3 if k % 2 else 7) for k in range(1, 9)]
    return expand_source(write_set(place, [image(k) for k in (1, 2, 3, 4)], boxes, **more))


def plainly(sources: list[PictureSource], how: HowToRead) -> ImageIndex:
    return read_sources(
        sources, keep_empty=how.keep_empty, invalid_boxes=how.invalid_boxes, purpose=how.purpose
    )


def kept(
    sources: list[PictureSource], place: Path, how: HowToRead = TRAIN, makes: bool = True
) -> ImageIndex:
    return read_kept(sources, how, str(place), makes=makes)


def same(a: ImageIndex, b: ImageIndex) -> None:
    """In every field but where it is kept."""
    for field in fields(ImageIndex):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if field.name == "stored":
            continue
        if isinstance(one, np.ndarray):
            assert (one.dtype, one.shape) == (other.dtype, other.shape), field.name
            assert one.tobytes() == other.tobytes(), field.name
        elif field.name == "file_names":
            assert list(one) == list(other) and one == other
        else:
            assert one == other and repr(one) == repr(other), field.name


def outcome(work: Callable[[], ImageIndex]) -> ImageIndex | str:
    try:
        return work()
    except UserError as error:
        return str(error)


def never_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("examine", "read_sources"):
        monkeypatch.setattr(cache, name, Mock(side_effect=AssertionError("it was read anew")))


def index_files(place: Path) -> list[Path]:
    return sorted((place / "index").glob("*.index"))


def real_sources() -> Iterator[tuple[str, list[PictureSource], bool]]:
    """Each set's name, its files, and whether an index of them is found again."""
    for name in ("bccd", "coco_tiny"):
        root = real_data(name, "whether what is kept of them is what they say")
        files = sorted((root / "annotations").glob("*.json"))
        pictures = root / ("images" if name == "bccd" else "train2017")
        for file in files:
            yield f"{name}/{file.name}", [PictureSource(file, pictures)], True
        yield name, [PictureSource(file, pictures) for file in files], True
    for case in sorted(CASES.iterdir()):
        if (case / "ann.json").exists():
            again = case.name != "no_sizes"
            yield case.name, [PictureSource(case / "ann.json", case / "images")], again


@pytest.mark.usefixtures("settled")
def test_real_sets_and_odd_ones_are_what_their_files_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fresh from the reader, as it is when it was made, and as it is found again."""
    found: dict[tuple[str, HowToRead], ImageIndex | str] = {}
    ways = (TRAIN, VAL, HowToRead(keep_empty=True, invalid_boxes="drop"))
    several = [(name, sources, again) for name, sources, again in real_sources()]
    assert len(several) > 6
    for name, sources, _ in several:
        for how in ways:
            plain = found[name, how] = outcome(lambda s=sources, h=how: plainly(s, h))  # type: ignore[misc]
            made = outcome(lambda s=sources, h=how: kept(s, tmp_path, h))  # type: ignore[misc]
            if isinstance(plain, str):
                assert made == plain
            else:
                assert isinstance(made, ImageIndex)
                same(plain, made)
    never_reads(monkeypatch)
    indexes = 0
    for name, sources, again in several:
        for how in ways:
            plain = found[name, how]
            if isinstance(plain, ImageIndex) and again:
                indexes += 1
                same(plain, kept(sources, tmp_path, how))
    assert indexes > 20


def test_a_large_made_up_set_with_left_out_pictures(tmp_path: Path) -> None:
    source = make_set(tmp_path, 300, 700)
    plain = plainly([source], TRAIN)
    assert len(plain) < 300 and plain.notes
    for _ in range(2):
        same(plain, kept([source], tmp_path / "cache"))
    assert len(index_files(tmp_path / "cache")) == 1


def test_each_way_to_read_has_its_own(tmp_path: Path) -> None:
    source = some_set(tmp_path)
    ways: list[HowToRead] = []
    for empty in (True, False):
        for invalid in ("stop", "drop"):
            for purpose in ("train", "val"):
                how = HowToRead(empty, invalid, purpose)
                ways += [how, HowToRead(empty, invalid, purpose, (3, 7))]
    assert len({how.key(["0"]) for how in ways}) == len(ways)
    assert TRAIN.key(["0", "1"]) != TRAIN.key(["1", "0"])
    assert len(kept([source], tmp_path / "cache", VAL)) == 4
    assert len(kept([source], tmp_path / "cache", TRAIN)) == 3


def test_other_code_reads_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = some_set(tmp_path)
    kept([source], tmp_path / "cache")
    monkeypatch.setattr(cache, "_code", lambda: "another version")
    kept([source], tmp_path / "cache")
    assert len(index_files(tmp_path / "cache")) == 2


def moved_box(source: PictureSource) -> None:
    """The same file with another box: as long, and with the same time of change."""
    before = source.annotations.stat()
    text = source.annotations.read_text()
    assert '"bbox": [1, 1, 5, 5]' in text
    source.annotations.write_text(text.replace('"bbox": [1, 1, 5, 5]', '"bbox": [2, 1, 5, 5]'))
    os.utime(source.annotations, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = source.annotations.stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)


def test_an_index_is_kept_under_what_was_read_though_the_file_changed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = some_set(tmp_path)
    first = source.annotations.read_bytes()

    def once_changed(*given: Any, **named: Any) -> Any:
        moved_box(source)  # between its digest and its reading
        return examine(*given, **named)

    monkeypatch.setattr(cache, "examine", once_changed)
    assert kept([source], tmp_path / "cache").raw_boxes[:, 0].min() == 2
    monkeypatch.setattr(cache, "examine", examine)
    same(plainly([source], TRAIN), kept([source], tmp_path / "cache"))
    source.annotations.write_bytes(first)
    assert kept([source], tmp_path / "cache").raw_boxes[:, 0].min() == 1


@pytest.mark.parametrize("how_old", ["young", "settled"])
def test_corrected_boxes_are_read_though_size_and_time_are_the_same(
    how_old: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how_old == "settled":
        monkeypatch.setattr(stamps, "SETTLED_S", -3600.0)
    source = some_set(tmp_path)
    assert kept([source], tmp_path / "cache").raw_boxes[:, 0].min() == 1
    time.sleep(0.02)  # longer than a step of the file system's clock
    moved_box(source)
    same(plainly([source], TRAIN), kept([source], tmp_path / "cache"))
    other = tmp_path / "other.json"
    other.write_bytes(source.annotations.read_bytes().replace(b"[2, 1, 5, 5]", b"[4, 1, 5, 5]"))
    other.replace(source.annotations)
    same(plainly([source], TRAIN), kept([source], tmp_path / "cache"))


def test_bytes_are_digested_again_unless_an_old_stamp_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = some_set(tmp_path)
    place = tmp_path / "cache"
    kept([source], place)
    assert not list((place / "index").glob("*.digest")), "it is too young to be believed"
    monkeypatch.setattr(stamps, "SETTLED_S", -3600.0)
    kept([source], place)
    (note,) = (place / "index").glob("*.digest")
    stamp, digest = json.loads(note.read_text())
    note.write_text(json.dumps([stamp, "0" * 64]))
    kept([source], place)
    assert json.loads(note.read_text())[1] == "0" * 64, "the note was believed"
    os.utime(source.annotations)
    kept([source], place)
    assert json.loads(note.read_text())[1] == digest
    note.write_text("[")
    same(plainly([source], TRAIN), kept([source], place))


@pytest.mark.usefixtures("settled")
def test_no_digest_is_noted_of_a_file_that_changed_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "annotations.json"
    file.write_bytes(b"as it was")

    def once_changed(*given: bytes) -> Any:
        if given:  # the name of a note
            return sha256(*given)
        file.write_bytes(b"as it is, and longer")
        monkeypatch.setattr(hashlib, "sha256", sha256)
        return sha256(b"as it was")

    sha256 = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", once_changed)
    records.digest_of(file, tmp_path)
    assert records.digest_of(file, tmp_path) == sha256(file.read_bytes()).hexdigest()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a bit of the mark": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "a bit of the header": lambda data: data[:90] + bytes([data[90] ^ 1]) + data[91:],
    "a bit of the numbers": lambda data: data[:-200] + bytes([data[-200] ^ 1]) + data[-199:],
    "cut off": lambda data: data[:-64],
    "longer": lambda data: data + bytes(64),
    "half a head": lambda data: data[:30],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_anew(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = some_set(tmp_path)
    whole = kept([source], tmp_path / "cache")
    (file,) = index_files(tmp_path / "cache")
    before = file.read_bytes()
    file.unlink()  # the first one is mapped still
    file.write_bytes(DAMAGES[damage](before))
    with caplog.at_level(logging.WARNING):
        same(whole, kept([source], tmp_path / "cache"))
    assert caplog.text.count(f"{file}: made anew: ") == 1
    assert file.read_bytes() == before
    same(whole, plainly([source], TRAIN))


def test_sound_checksums_of_something_else_are_made_anew(tmp_path: Path) -> None:
    source = some_set(tmp_path)
    whole = kept([source], tmp_path / "cache")
    (file,) = index_files(tmp_path / "cache")
    arrays.write_arrays(file, {"boxes": np.zeros(3)}, {"told_paths": None})
    same(whole, kept([source], tmp_path / "cache"))


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("left_out", [False, True])
def test_a_picture_that_goes_is_told_as_without_a_cache(left_out: bool, tmp_path: Path) -> None:
    """Picture 4 has no boxes: training leaves it out, and asks for it all the same."""
    source = some_set(tmp_path)
    whole = kept([source], tmp_path / "cache")
    picture = source.images / ("4.png" if left_out else "2.png")
    picture.rename(tmp_path / "away.png")
    with pytest.raises(UserError) as plain:
        plainly([source], TRAIN)
    with pytest.raises(UserError, match="missing picture file") as told:
        kept([source], tmp_path / "cache")
    assert str(plain.value) == str(told.value)
    (tmp_path / "away.png").rename(picture)
    same(whole, kept([source], tmp_path / "cache"))


@pytest.mark.usefixtures("settled")
def test_other_files_beside_the_pictures_cost_a_listing_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = some_set(tmp_path)
    kept([source], tmp_path / "cache")
    (source.images / "notes.txt").touch()
    never_reads(monkeypatch)
    listed = Mock(side_effect=os.scandir)
    monkeypatch.setattr(os, "scandir", listed)
    for _ in range(3):
        kept([source], tmp_path / "cache")
        assert listed.call_count == 2, "for the digest of its names, and for ours; then no more"


@pytest.mark.usefixtures("settled")
def test_links_are_followed_each_time(tmp_path: Path) -> None:
    source = some_set(tmp_path)
    (tmp_path / "store").mkdir()
    (source.images / "2.png").rename(tmp_path / "store" / "2.png")
    (source.images / "2.png").symlink_to(tmp_path / "store" / "2.png")
    whole = kept([source], tmp_path / "cache")
    same(whole, kept([source], tmp_path / "cache"))
    (tmp_path / "store" / "2.png").unlink()
    with pytest.raises(UserError, match=r"a link to .*which is not there"):
        kept([source], tmp_path / "cache")


@pytest.mark.usefixtures("settled")
def test_names_that_were_mended_are_looked_up_anew_where_folders_have_changed(
    tmp_path: Path,
) -> None:
    source = some_set(tmp_path)
    (source.images / "2.png").rename(source.images / "2.PNG")
    first = kept([source], tmp_path / "cache")
    assert "2.PNG" in first.file_names
    same(first, kept([source], tmp_path / "cache"))
    (source.images / "2.png").touch()
    now = kept([source], tmp_path / "cache")
    same(plainly([source], TRAIN), now)
    assert "2.png" in now.file_names


def test_sizes_that_pictures_give_are_read_each_time(tmp_path: Path) -> None:
    images = [{"id": k, "file_name": f"{k}.png"} for k in (1, 2)]
    with_size = [image(1), image(2)]
    boxes = [box(1, 1, [0, 0, 5, 5]), box(2, 2, [0, 0, 5, 5])]
    write_set(tmp_path, with_size, boxes)
    source = expand_source(write_set(tmp_path, images, boxes, pictures=False))
    same(plainly([source], TRAIN), kept([source], tmp_path / "cache"))
    assert not index_files(tmp_path / "cache")


def test_texts_that_name_files_name_those_of_now(tmp_path: Path) -> None:
    few = CATEGORIES[:2]
    for name in ("a", "b"):
        for part, categories in (("1", CATEGORIES), ("2", few)):
            write_set(tmp_path / name / part, [image(1)], [box(1, 1, [0, 0, 5, 5])], categories)
    for name in ("a", "b", "a"):
        sources = [
            PictureSource(tmp_path / name / part / "set.json", tmp_path / name / part / "pictures")
            for part in ("1", "2")
        ]
        index = kept(sources, tmp_path / "cache")
        assert any(str(tmp_path / name) in note for note in index.notes)
        same(plainly(sources, TRAIN), index)


def test_a_copy_elsewhere_is_found_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = some_set(tmp_path / "a"), some_set(tmp_path / "b")
    kept([first], tmp_path / "cache")
    plain = plainly([second], TRAIN)
    never_reads(monkeypatch)
    index = kept([second], tmp_path / "cache")
    same(plain, index)
    assert index.file(0) == second.images / "1.png"


def look_and_leave(data: bytes, answers: Any) -> None:
    index: ImageIndex = pickle.loads(data)
    parts = index.stored
    answers.put((index.boxes.tolist(), list(index.file_names), index.doubts, parts is not None))


def test_workers_are_sent_a_reference(tmp_path: Path) -> None:
    """Also when the cache has been cleared or holds another file by then."""
    from dataclasses import replace

    source = make_set(tmp_path, 200, 900)
    index = kept([source], tmp_path / "cache")
    other = replace(index, labels=index.labels + 1, doubts=("said",))
    sent = pickle.dumps(other)
    assert len(pickle.dumps(index)) < 2500
    assert len(sent) < 2500 + other.labels.nbytes
    (file,) = index_files(tmp_path / "cache")
    context = multiprocessing.get_context("spawn")
    answers: Any = context.Queue()  # a worker that fails puts nothing: get() must not wait for ever
    file.rename(file.with_suffix(".away"))
    arrays.write_arrays(file, {"boxes": np.zeros(3)}, {})
    worker = context.Process(target=look_and_leave, args=(sent, answers))
    worker.start()
    boxes, names, doubts, is_stored = answers.get(timeout=120)
    worker.join()
    assert boxes == index.boxes.tolist() and names == list(index.file_names)
    assert doubts == ("said",) and is_stored
    again = pickle.loads(sent)
    assert again.labels.tolist() == other.labels.tolist()
    plain = plainly([source], TRAIN)
    same(plain, pickle.loads(pickle.dumps(plain)))


def test_a_worker_does_not_take_up_half_a_copy(tmp_path: Path) -> None:
    """One with the right header, of which a worker reads no more."""
    index = kept([some_set(tmp_path)], tmp_path / "cache")
    (file,) = index_files(tmp_path / "cache")
    half = file.with_suffix(".half")
    half.write_bytes(file.read_bytes()[:-64])
    half.rename(file)
    same(index, pickle.loads(pickle.dumps(index)))
    digest = index.stored._arrays.digest  # type: ignore[union-attr]
    with pytest.raises(StorageError, match="can't be opened any more"):
        arrays._again(str(file), digest, os.getpid(), 10_000)


def test_a_reference_to_what_is_nowhere_is_told(tmp_path: Path) -> None:
    kept([some_set(tmp_path)], tmp_path / "cache")
    (file,) = index_files(tmp_path / "cache")
    with pytest.raises(StorageError, match="can't be opened any more"):
        arrays._again(str(file), "0" * 64, os.getpid(), 10_000)


def test_a_mapped_index_cannot_be_written_to(tmp_path: Path) -> None:
    index = kept([some_set(tmp_path)], tmp_path / "cache")
    assert isinstance(index.stored, stored.StoredParts)
    for name in stored.ARRAYS:
        assert not getattr(index, name).flags.writeable


def test_on_a_shared_disk_it_is_read_and_not_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "on_local_disk", lambda file: False)
    source = some_set(tmp_path)
    for _ in range(2):
        index = kept([source], tmp_path / "cache")
        same(plainly([source], TRAIN), index)
        assert index.stored is None
        same(index, pickle.loads(pickle.dumps(index)))


def refuse(number: int) -> Any:
    def write(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return write


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_costs_a_line(
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = some_set(tmp_path)
    monkeypatch.setattr(cache, "write_index_file", refuse(number))
    with caplog.at_level(logging.WARNING):
        same(plainly([source], TRAIN), kept([source], tmp_path / "cache"))
    assert "can't be written" in caplog.text and os.strerror(number) in caplog.text
    assert not index_files(tmp_path / "cache")


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refuse(errno.ENOSPC))
    source = some_set(tmp_path)
    same(plainly([source], TRAIN), kept([source], tmp_path / "cache"))
    left = [file.name for file in (tmp_path / "cache" / "index").iterdir()]
    assert not [name for name in left if not name.endswith((".lock", ".seen", ".digest"))]


@pytest.mark.parametrize("setting", ["off", "a file"])
def test_without_a_folder_files_are_read(
    setting: Literal["off", "a file"], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = some_set(tmp_path)
    (tmp_path / "file").touch()
    place = "off" if setting == "off" else str(tmp_path / "file")
    with caplog.at_level(logging.INFO):
        same(plainly([source], TRAIN), read_kept([source], TRAIN, place, makes=True))
    assert ("is not kept" in caplog.text) == (setting == "a file")


def test_who_is_not_to_make_it_reads_by_itself(tmp_path: Path) -> None:
    source = some_set(tmp_path)
    same(plainly([source], TRAIN), kept([source], tmp_path / "cache", makes=False))
    assert not index_files(tmp_path / "cache")


def test_small_files_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = some_set(tmp_path)
    size = source.annotations.stat().st_size
    for least, expected in ((size + 1, 0), (size, 1)):
        monkeypatch.setattr(cache, "WORTH_IT_BYTES", least)
        kept([source], tmp_path / "cache")
        assert len(index_files(tmp_path / "cache")) == expected


HOLD = """
import fcntl, pathlib, sys, time
with open(sys.argv[1], "a") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("waits", [True, False])
def test_another_program_at_work_is_waited_for_but_not_for_ever(
    waits: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = some_set(tmp_path)
    kept([source], tmp_path / "cache")
    (file,) = index_files(tmp_path / "cache")
    file.unlink()
    words = [sys.executable, "-c", HOLD, str(file.with_suffix(".lock")), "1" if waits else "60"]
    other = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline() == b"held\n"
    monkeypatch.setattr(cache, "LONGEST_WAIT_S", 30.0 if waits else 0.3)
    with caplog.at_level(logging.INFO):
        same(plainly([source], TRAIN), kept([source], tmp_path / "cache"))
    other.kill()
    other.wait()
    assert "another program is making" in caplog.text
    assert ("reading the annotation files without it" in caplog.text) != waits
    assert len(index_files(tmp_path / "cache")) == waits


MAKE = """
import logging, sys
from pathlib import Path
from megdet_hvd.data.index_cache import cache
from megdet_hvd.data.source import PictureSource
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
cache.WORTH_IT_BYTES = 0
place = Path(sys.argv[1])
source = PictureSource(place / "set.json", place / "pictures")
print("ready", flush=True)
sys.stdin.readline()
index = cache.read_kept([source], cache.HowToRead(False, "stop"), str(place / "cache"), makes=True)
print(len(index), index.stored is not None)
"""


def test_of_several_programs_at_once_one_reads(tmp_path: Path) -> None:
    source = make_set(tmp_path, 500, 4000)
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", MAKE, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for one in programs:
        assert one.stdout is not None and one.stdout.readline() == "ready\n"
    for one in programs:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    said = [one.communicate()[0].splitlines() for one in programs]
    assert sum(line.startswith("reading ") for lines in said for line in lines) == 1
    assert {lines[-1] for lines in said} == {f"{len(plainly([source], TRAIN))} True"}


def test_what_nobody_uses_is_cleared_away(tmp_path: Path) -> None:
    place = tmp_path / "cache" / "index"
    place.mkdir(parents=True)
    now = time.time()
    ages = {
        "old.index": folder.KEPT_S + 60,
        "used.index": folder.KEPT_S - 60,
        "old.seen": folder.KEPT_S + 60,
        ".half.index.host-1-ab.tmp": 25 * 3600.0,
        ".being.index.host-1-ab.tmp": 60.0,
    }
    for name, age in ages.items():
        (place / name).touch()
        os.utime(place / name, (now - age, now - age))
    folder.mark_used(place / "used.index")
    assert time.time() - (place / "used.index").stat().st_mtime < 60
    kept([some_set(tmp_path)], tmp_path / "cache")
    left = {file.name for file in place.iterdir()}
    assert left & ages.keys() == {"used.index", ".being.index.host-1-ab.tmp"}


def test_where_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEGDET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "node"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "node").mkdir(mode=0o700)
    monkeypatch.setattr(folder, "on_local_disk", lambda place: True)
    assert folder.index_folder("auto") == tmp_path / "cache" / "index"
    monkeypatch.setattr(folder, "on_local_disk", lambda place: False)
    own = tmp_path / "node" / f"megdet_hvd-{os.geteuid()}" / "index"
    assert folder.index_folder("auto") == own and own.stat().st_mode & 0o077 == 0
    assert folder.index_folder(str(tmp_path / "mine")) == tmp_path / "mine" / "index"
    assert folder.index_folder("off") is None
    own.chmod(0o777)
    with pytest.raises(folder.UnusableFolderError, match="others may write to it"):
        folder.index_folder("auto")
    monkeypatch.delenv("NO_SUCH_FOLDER", raising=False)
    with pytest.raises(UserError, match=r"data\.index_cache=\$\{NO_SUCH_FOLDER\}"):
        folder.index_folder("${NO_SUCH_FOLDER}")


def test_kinds_of_file_systems() -> None:
    mounts = _mounts(
        "20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "21 20 0:40 / /home rw - nfs4 server:/home rw\n"
        "22 21 0:41 / /home/my\\040disk rw - xfs /dev/sdb rw\n"
        "23 20 0:42 / /mnt/s3 rw - fuse.s3fs s3fs rw\n"
        "24 20 0:43 / /home rw - lustre mds:/home rw\n"
    )
    kinds = {
        "/var/tmp": "ext4",
        "/home/me/.cache": "lustre",  # the later one hides the earlier one
        "/home/my disk/x": "xfs",
        "/home/my": "lustre",
        "/homes": "ext4",
        "/mnt/s3": "fuse.s3fs",
    }
    assert {path: kind_at(path, mounts) for path in kinds} == kinds
    assert kind_at("/x", ()) == ""


def test_names_of_every_kind() -> None:
    names = ["a.jpg", "", "ä/日本.png", "\ud800half", "a" * 300]
    table = NameTable.of(names)
    assert list(table) == names and table == names and len(table) == 5
    assert [table[k] for k in range(-5, 5)] == names * 2 and table[1:3] == names[1:3]
    assert table != names[:-1] and table != [*names[:-1], "b"] and table != 3
    with pytest.raises(IndexError, match="name 5 of 5"):
        table[5]
    assert list(NameTable.of([])) == []


def coco(*sources: PictureSource, place: Path, **more: Any) -> DataConfig:
    named = [
        AnnotationSource(annotations=str(s.annotations), images=str(s.images)) for s in sources
    ]
    return DataConfig(
        kind="coco", train=(named[0],), val=tuple(named[1:]), index_cache=str(place), **more
    )


@pytest.mark.usefixtures("settled")
def test_one_process_of_a_machine_reads_and_the_others_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = some_set(tmp_path)
    config = coco(source, source, place=tmp_path / "cache")
    told: list[str] = []
    main = open_datasets(config, is_main=True, wait=lambda: told.append("main"))
    never_reads(monkeypatch)

    def wait() -> None:
        assert not told[1:], "once"
        told.append("other")

    other = open_datasets(config, is_main=False, wait=wait)
    assert told == ["main", "other"]
    assert main.val is not None and other.val is not None
    same(main.train, other.train)
    same(main.val, other.val)
    classes = dict(zip(main.train.category_ids, main.train.categories, strict=True))
    alone = open_validation(config, is_main=False, wait=Mock(), known=(classes, "a checkpoint"))
    same(main.val, alone)
    assert content_digest(source, main.train) == content_digest(source, plainly([source], TRAIN))


def test_others_wait_until_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = some_set(tmp_path)
    config = coco(source, place=tmp_path / "cache")

    def wait() -> None:
        open_datasets(config, is_main=True, wait=Mock())
        never_reads(monkeypatch)

    assert open_datasets(config, is_main=False, wait=wait).train.stored is not None


@pytest.mark.parametrize("is_main", [True, False])
@pytest.mark.parametrize("setting", ["kept", "off"])
def test_nobody_is_left_waiting_where_it_fails(is_main: bool, setting: str, tmp_path: Path) -> None:
    source = some_set(tmp_path, pictures=False)
    place = tmp_path / "cache" if setting == "kept" else Path("off")
    wait = Mock()
    with pytest.raises(UserError, match="missing picture file"):
        open_datasets(coco(source, place=place), is_main=is_main, wait=wait)
    wait.assert_called_once_with()
