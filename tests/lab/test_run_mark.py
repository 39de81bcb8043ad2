"""A run folder is carried on by the training that it is of, and by no other."""

from pathlib import Path

import pytest

from megdet_hvd.errors import UserError
from megdet_hvd.lab.run_mark import claim, mark_of


def test_a_folder_is_claimed_by_one_training(tmp_path: Path) -> None:
    folder = tmp_path / "work" / "frozen-b8-normal"
    claim(folder, "s", "b")
    claim(folder, "other", "b")  # nothing lies there yet
    folder.mkdir()
    claim(folder, "other", "b")
    for settings, backbone in (("s", "b"), ("other", "another")):
        with pytest.raises(UserError, match=r"frozen-b8-normal is a training of other settings"):
            claim(folder, settings, backbone)
    claim(folder, "other", "b")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 99999])
def test_a_note_that_says_nothing_claims_for_nobody(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    mark_of(folder).write_bytes(content)
    with pytest.raises(UserError, match="remove it"):
        claim(folder, "s", "b")


def test_a_folder_without_a_note_is_taken_for_what_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    claim(tmp_path / "run", "s", "b")
    with pytest.raises(UserError, match="other settings"):
        claim(tmp_path / "run", "t", "b")


def test_a_place_that_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("")
    with pytest.raises(UserError, match="trainings can't be kept there"):
        claim(tmp_path / "work" / "run", "s", "b")
