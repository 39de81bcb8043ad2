from pathlib import Path

import pytest

from megdet_hvd.checkpoint.file import load_checkpoint
from megdet_hvd.checkpoint.naming import latest_checkpoint, list_checkpoints
from megdet_hvd.checkpoint.recovery import (
    bring_back_best,
    checkpoint_to_carry_on,
    newest_sound_checkpoint,
    set_aside,
    set_damaged_aside,
)
from megdet_hvd.checkpoint.retention import mark_best
from tests.checkpoint.test_file import flip_a_bit, write


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def test_the_newest_sound_one_is_found_and_damaged_ones_set_aside(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    old, good, flipped, cut = write(folder, 10, 20, 30, 40)
    mark_best(old)
    assert newest_sound_checkpoint(tmp_path) == (cut, [])
    flip_a_bit(flipped)
    assert newest_sound_checkpoint(tmp_path) == (cut, []), "older ones are not read"
    cut_off(cut)
    assert newest_sound_checkpoint(tmp_path) == (good, [cut, flipped])
    moved = set_aside([cut, flipped])
    assert [path.name for path in moved] == [
        "iteration_00000040.pt.damaged",
        "iteration_00000030.pt.damaged",
    ]
    assert all(path.exists() for path in moved)
    assert list_checkpoints(folder) == [old, good] and latest_checkpoint(folder) == good
    assert load_checkpoint(tmp_path)["iteration"] == 20
    assert newest_sound_checkpoint(folder) == (good, [])


def test_a_run_without_a_sound_checkpoint(tmp_path: Path) -> None:
    assert newest_sound_checkpoint(tmp_path) == (None, [])
    (only,) = write(tmp_path, 10)
    only.write_bytes(b"")
    assert newest_sound_checkpoint(tmp_path) == (None, [only])
    assert set_aside([]) == []


def test_a_file_that_cannot_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 10)

    def stale(*_: object, **__: object) -> None:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr("zipfile.ZipFile", stale)
    with pytest.raises(OSError, match="Stale"):
        newest_sound_checkpoint(tmp_path)


def test_the_best_one_takes_the_place_of_numbered_ones_that_are_all_damaged(
    tmp_path: Path,
) -> None:
    old, newest = write(tmp_path, 10, 20)
    assert bring_back_best(tmp_path) is None, "there is none"
    best = mark_best(old)
    old.unlink()
    cut_off(newest)
    set_aside([newest])
    assert bring_back_best(tmp_path) == old
    assert load_checkpoint(tmp_path)["iteration"] == 10 and best.exists()
    old.unlink()
    flip_a_bit(best)
    assert bring_back_best(tmp_path) is None, "it is damaged too"
    assert list_checkpoints(tmp_path) == []


def test_a_run_carries_on_from_the_newest_sound_one(tmp_path: Path) -> None:
    old, good, cut = write(tmp_path / "checkpoints", 10, 20, 30)
    cut_off(cut)
    said: list[str] = []
    assert checkpoint_to_carry_on(tmp_path) == good and cut.exists()
    set_damaged_aside(tmp_path, said.append, all_of_them=False)
    assert list_checkpoints(tmp_path / "checkpoints") == [old, good]
    aside = cut.with_name("iteration_00000030.pt.damaged")
    assert aside.exists()
    assert said == [
        f"damaged, and set aside: {aside}",
        "the run carries on from iteration_00000020.pt",
    ]
    set_damaged_aside(tmp_path, said.append, all_of_them=False)
    assert len(said) == 2, "nothing to say of sound ones"


def test_best_takes_its_own_number_again(tmp_path: Path) -> None:
    (only,) = write(tmp_path / "checkpoints", 10)
    best = only.with_name("best.pt")
    best.write_bytes(only.read_bytes())
    flip_a_bit(only)
    bytes_of_it = only.read_bytes()
    assert checkpoint_to_carry_on(tmp_path) == best
    set_damaged_aside(tmp_path, lambda text: None, all_of_them=False)
    assert load_checkpoint(tmp_path)["iteration"] == 10
    assert only.with_name("iteration_00000010.pt.damaged").read_bytes() == bytes_of_it


@pytest.mark.parametrize("all_of_them", [False, True])
def test_where_none_is_left(tmp_path: Path, all_of_them: bool) -> None:
    (only,) = write(tmp_path / "checkpoints", 10)
    cut_off(only)
    assert checkpoint_to_carry_on(tmp_path) is None
    set_damaged_aside(tmp_path, lambda text: None, all_of_them=all_of_them)
    assert only.exists() is not all_of_them
