import os
import socket
from pathlib import Path
from typing import Any

import pytest

from megdet_hvd.checkpoint.atomic import write_atomically, write_bytes
from megdet_hvd.checkpoint.file import load_checkpoint
from megdet_hvd.checkpoint.naming import (
    checkpoint_name,
    find_checkpoint,
    iteration_of,
    latest_checkpoint,
    list_checkpoints,
    no_run_words,
)
from megdet_hvd.checkpoint.retention import clear_leftovers, mark_best, prune_checkpoints
from megdet_hvd.storage import temporary_beside
from tests.checkpoint.test_file import write


def test_names_and_numbers() -> None:
    assert checkpoint_name(1234) == "iteration_00001234.pt"
    assert checkpoint_name(123456789) == "iteration_123456789.pt"
    assert iteration_of(Path("x/iteration_123456789.pt")) == 123456789
    for other in ("best.pt", "iteration_12.pt", ".iteration_00001234.pt.tmp", "iteration_0x.pt"):
        assert iteration_of(Path(other)) is None


def test_the_latest_goes_by_number_not_by_text(tmp_path: Path) -> None:
    for name in ("iteration_99999999.pt", "iteration_100000000.pt", "best.pt", "notes.txt"):
        (tmp_path / name).touch()
    assert latest_checkpoint(tmp_path) == tmp_path / "iteration_100000000.pt"
    assert find_checkpoint(tmp_path) == tmp_path / "iteration_100000000.pt"
    assert list_checkpoints(tmp_path / "missing") == []


def test_newest_and_best_stay(tmp_path: Path) -> None:
    paths = write(tmp_path, 10, 20, 30, 40)
    mark_best(paths[2])
    mark_best(paths[1])
    mark_best(paths[1])
    (tmp_path / "notes.txt").touch()
    assert prune_checkpoints(tmp_path, keep=2) == paths[:2]
    assert sorted(os.listdir(tmp_path)) == [
        "best.pt",
        "iteration_00000030.pt",
        "iteration_00000040.pt",
        "notes.txt",
    ]
    assert load_checkpoint(tmp_path / "best.pt")["iteration"] == 20
    assert prune_checkpoints(tmp_path, keep=2) == []


def test_best_without_hard_links_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    (path,) = write(tmp_path, 10)
    best = mark_best(path)
    assert best.read_bytes() == path.read_bytes()
    assert best.stat().st_ino != path.stat().st_ino


def test_leftovers_of_killed_writers_are_cleared_and_nothing_else(tmp_path: Path) -> None:
    inside = tmp_path / "checkpoints"
    (path,) = write(inside, 10)
    left = [
        temporary_beside(path),
        temporary_beside(tmp_path / "config.yaml"),
        inside / ".iteration_00000050.pt.tmp",  # of former versions
    ]
    for file in [*left, tmp_path / "notes.tmp", inside / ".hidden"]:
        file.write_bytes(b"left by a killed run")
    prune_checkpoints(inside, 1)
    assert all(file.exists() for file in left), "only who holds the run's lock may know"
    assert sorted(clear_leftovers(tmp_path)) == sorted(left)
    assert sorted(os.listdir(inside)) == [".hidden", path.name]
    assert (tmp_path / "notes.tmp").exists()


def test_no_two_writers_share_a_temporary_name(tmp_path: Path) -> None:
    """Where they did, one renamed what the other was still writing."""
    path = tmp_path / "iteration_00000001.pt"
    one, other = temporary_beside(path), temporary_beside(path)
    assert one != other and one.parent == tmp_path
    assert socket.gethostname() in one.name and f"-{os.getpid()}-" in one.name

    def write_slowly(file: Any) -> None:
        file.write(b"first ")
        write_bytes(path, b"second, and whole")
        file.write(b"and whole")

    write_atomically(path, write_slowly)
    assert path.read_bytes() == b"first and whole"
    assert os.listdir(tmp_path) == [path.name]


def test_checkpoints_of_others_are_neither_counted_nor_deleted(tmp_path: Path) -> None:
    paths = write(tmp_path, 10, 20, 30, 40, 50)
    own = {paths[0].name, paths[2].name, paths[4].name}
    assert prune_checkpoints(tmp_path, 1, own=own) == [paths[0], paths[2]]
    assert list_checkpoints(tmp_path) == [paths[1], paths[3], paths[4]]


@pytest.mark.parametrize("keep", [1, 2, 3, 9])
@pytest.mark.parametrize("best", [10, 20, 30, 40])
def test_pruning_never_costs_the_newest_nor_the_best(tmp_path: Path, keep: int, best: int) -> None:
    paths = write(tmp_path, 10, 20, 30, 40)
    mark_best(tmp_path / checkpoint_name(best))
    prune_checkpoints(tmp_path, keep)
    assert list_checkpoints(tmp_path) == paths[-keep:] and latest_checkpoint(tmp_path) == paths[-1]
    assert load_checkpoint(tmp_path / "best.pt")["iteration"] == best


def test_a_protected_checkpoint_stays_until_it_no_longer_is(tmp_path: Path) -> None:
    paths = write(tmp_path, 10, 20, 30, 40)
    assert prune_checkpoints(tmp_path, 1, protected=[paths[1]]) == [paths[0], paths[2]]
    assert list_checkpoints(tmp_path) == [paths[1], paths[3]]
    assert prune_checkpoints(tmp_path, 1) == [paths[1]]


def test_what_is_said_where_there_is_no_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    assert no_run_words(run).endswith("(it has no config.yaml)")
    assert no_run_words(tmp_path / "typo").endswith("(there is no such folder)")
    (run / "config.yaml").touch()
    best = run / "checkpoints" / "best.pt"
    assert no_run_words(best).endswith("(there is no such folder)")
    best.touch()
    for inside in (best, best.parent):
        assert no_run_words(inside) == (
            f"{inside} holds no run to carry on, but lies in one; name {run}"
        )
