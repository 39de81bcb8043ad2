"""Staging with real folders, archives, signals and a full disk."""

import fcntl
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from megdet_hvd.errors import UserError
from megdet_hvd.staging.place import MARK
from megdet_hvd.staging.source import identity_of, look_at
from megdet_hvd.staging.stage import Staged, stage_data

ROOT = Path(__file__).resolve().parents[2]


def silent(text: str) -> None:
    """Nobody waits in these tests."""


def stage(to: Path, source: Path, **options: bool) -> Staged:
    return stage_data(to, source, silent, **options)


def command(to: Path, *words: str | Path) -> list[str]:
    return [sys.executable, "-m", "megdet_hvd.staging", "--to", str(to), *map(str, words)]


def run(to: Path, *words: str | Path, **kwargs: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(to, *words), cwd=ROOT, capture_output=True, text=True, timeout=60, **kwargs
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set in a folder with a space and a quote in its name."""
    folder = tmp_path / "my data's"
    (folder / "pictures" / "a b").mkdir(parents=True)
    (folder / "labels.json").write_text("{}")
    for number in range(20):
        (folder / "pictures" / "a b" / f"{number} é.jpg").write_bytes(os.urandom(1000 + number))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MARK
    }


def test_a_folder_is_copied_once(tmp_path: Path, data: Path) -> None:
    to = tmp_path / "local disk"
    first = run(to, "--data", data)
    assert first.returncode == 0, first.stderr
    words, facts = first.stdout.splitlines()[-2:]
    node = os.uname().nodename
    assert words.startswith(f"{node}: data copied to {to}/megdet_hvd/data/my_data_s-")
    found = json.loads(facts)
    assert found["node"] == node and found["environment"] is None
    place = Path(found["data"])
    assert contents(place) == contents(data)
    assert found["copied"]["data"] == sum(1000 + n for n in range(20)) + 2

    times = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    second = stage(to, data)
    assert (second.copied_bytes, second.path) == (None, place)
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == times


def test_damage_is_mended_and_no_more_than_that(tmp_path: Path, data: Path) -> None:
    place = stage(tmp_path / "to", data).path
    broken = place / "pictures" / "a b" / "3 é.jpg"
    broken.write_bytes(b"x")
    (place / "labels.json").unlink()
    assert stage(tmp_path / "to", data).copied_bytes == 1003 + 2
    assert contents(place) == contents(data)


def test_a_changed_source_is_another_copy(tmp_path: Path, data: Path) -> None:
    first = stage(tmp_path / "to", data)
    (data / "labels.json").write_text("{ }")
    second = stage(tmp_path / "to", data)
    assert second.path != first.path and second.older == (first.path,)
    third = stage(tmp_path / "to", data, remove_older=True)
    assert third.copied_bytes is None and not first.path.exists()


def test_identity_is_that_of_the_listing() -> None:
    facts = [("a", 1, 5), ("b/c", 2, 6)]
    assert identity_of(facts) == identity_of(facts[::-1])
    others = [[("a", 1, 5)], [("a", 1, 5), ("b/c", 3, 6)], [("a", 1, 5), ("b/c", 2, 7)]]
    assert len({identity_of(other) for other in [facts, *others]}) == 4


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_an_archive(tmp_path: Path, data: Path, ending: str) -> None:
    archive = tmp_path / f"set{ending}"
    with tarfile.open(archive, "w:gz" if ending == ".tar.gz" else "w") as tar:
        tar.add(data, "coco")
    staged = stage(tmp_path / "to", archive)
    assert staged.path.name == "coco" and staged.path.parent.name.startswith("set-")
    assert contents(staged.path) == contents(data)
    assert stage(tmp_path / "to", archive).copied_bytes is None

    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(UserError, match="this archive is damaged"):
        stage(tmp_path / "to", archive)
    assert len(list((tmp_path / "to").rglob(MARK))) == 1


def test_an_archive_that_leaves_its_folder(tmp_path: Path, data: Path) -> None:
    archive = tmp_path / "set.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(data / "labels.json", "../outside.json")
    with pytest.raises(UserError, match=r"holds '\.\./outside\.json'"):
        stage(tmp_path / "to", archive)
    assert not list(tmp_path.rglob("outside.json"))


def member(name: str, *, kind: bytes = tarfile.REGTYPE, to: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, to
    return found


@pytest.mark.parametrize("old_python", [False, True])
def test_an_archive_that_leaves_its_folder_through_a_link(tmp_path: Path, old_python: bool) -> None:
    """Links first, and files through them: a folder, a file, a hard link, a link over a link."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "diary").write_text("mine")
    away, back = str(mine), "../" * 40 + str(mine).lstrip("/")
    link, hard = tarfile.SYMTYPE, tarfile.LNKTYPE
    for members in (
        [member("a", kind=link, to=away), member("a/diary")],
        [member("a", kind=link, to=back), member("a/new")],
        [member("d/a", kind=link, to=f"{away}/diary"), member("d/a")],
        [member("a", kind=link, to=away), member("h", kind=hard, to="a/diary"), member("h")],
        [member("a", kind=link, to=away), member("b", kind=link, to="a"), member("b/new")],
        [member("a", kind=link, to=away), member("a/sub", kind=tarfile.DIRTYPE)],
    ):
        archive = tmp_path / "set.tar"
        with tarfile.open(archive, "w") as tar:
            for one in [member("good"), *members]:
                tar.addfile(one, io.BytesIO())
        with ExitStack() as patched:
            if old_python and hasattr(tarfile, "tar_filter"):
                patched.enter_context(mock.patch.object(tarfile, "tar_filter"))
                del tarfile.tar_filter
            with pytest.raises(UserError, match="whose way leads through a link"):
                stage(tmp_path / "to", archive)
        assert [path.name for path in mine.iterdir()] == ["diary"]
        assert (mine / "diary").read_text() == "mine" and (mine / "diary").stat().st_nlink == 1


def test_bad_sources(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    for name, said in (
        ("absent", "no such file or folder"),
        ("empty", "this folder is empty"),
        ("notes.txt", "neither folder nor archive"),
    ):
        with pytest.raises(UserError, match=said):
            look_at(tmp_path / name)
    done = run(tmp_path / "notes.txt", "--data", ROOT / "configs")
    assert done.returncode == 2 and "must be one of your own on every node" in done.stderr


def test_no_room_is_said_with_the_sum(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "megdet_hvd.staging.place.shutil.disk_usage",
        lambda path: type("Usage", (), {"free": 10_000_000})(),
    )
    big = data / "big"
    with big.open("wb") as file:
        file.truncate(50_000_000)
    with pytest.raises(UserError) as raised:
        stage(tmp_path / "to", data)
    assert "0.05 GB in 22 files are to be copied" in str(raised.value)
    assert "0.01 GB are free" in str(raised.value)


def test_a_disk_that_fills_up_midway(tmp_path: Path, data: Path) -> None:
    """A limit on the size of files makes the system refuse to write, as a full disk does."""
    with (data / "big").open("wb") as file:
        file.truncate(5_000_000)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    done = run(tmp_path / "to", "--data", data, preexec_fn=limit)
    assert done.returncode == 2 and "the disk is full" in done.stderr
    assert not list((tmp_path / "to").rglob(MARK))
    assert not list((tmp_path / "to").rglob("big"))
    assert stage(tmp_path / "to", data).copied_bytes is not None
    assert not list((tmp_path / "to").rglob("*.megdet_partial"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ended_in_the_middle(tmp_path: Path, number: signal.Signals) -> None:
    """The archive is a pipe, which gives no more than its beginning."""
    source = tmp_path / "set"
    source.mkdir()
    (source / "a").write_bytes(b"1" * 100)
    archive = tmp_path / "set.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(source / "a", "a")
    whole = archive.read_bytes()
    os.remove(archive)
    os.mkfifo(archive)
    child = [sys.executable, "-c", _UNPACK_A_PIPE, str(archive), str(tmp_path / "to")]
    process = subprocess.Popen(child, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        with archive.open("wb") as pipe:
            pipe.write(whole[:600])
            pipe.flush()
            assert process.stdout is not None
            assert process.stdout.readline() == "reading\n"
            process.send_signal(number)
            process.wait(20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode != 0
    assert not list((tmp_path / "to").rglob(MARK))
    os.remove(archive)
    archive.write_bytes(whole)
    staged = stage(tmp_path / "to", archive)
    assert (staged.path / "a").read_bytes() == b"1" * 100


_UNPACK_A_PIPE = """
import signal, sys
from pathlib import Path
from megdet_hvd.staging import __main__ as program, stage, source
signal.signal(signal.SIGTERM, program._terminated)
archive, to = map(Path, sys.argv[1:])
stage.look_at = lambda path: source.StagingSource(path, "set", "0" * 12, {path.name: 1})
print("reading", flush=True)
stage.stage_data(to, archive, print)
"""


def test_two_jobs_copy_once(tmp_path: Path, data: Path) -> None:
    """Both find the lock held, so that they overlap for certain."""
    to = tmp_path / "to"
    place = to / "megdet_hvd" / "data" / f"my_data_s-{look_at(data).identity}"
    place.parent.mkdir(parents=True)
    with (place.parent / f".{place.name}.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        jobs = [
            subprocess.Popen(
                command(to, "--data", data), cwd=ROOT, stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        for job in jobs:
            assert job.stdout is not None
            assert "another job is copying" in job.stdout.readline()
    answers = [json.loads(job.communicate(timeout=60)[0].splitlines()[-1]) for job in jobs]
    copied = [answer["copied"]["data"] for answer in answers]
    assert sorted(copied, key=lambda n: n is None)[1] is None and copied.count(None) == 1
    assert contents(place) == contents(data)
