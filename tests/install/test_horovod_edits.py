"""The edits to Horovod's sources fit, or say which one does not."""

from pathlib import Path

import pytest

from install.horovod_edits import EDITS, Edit, apply_edits
from install.problem import SetupProblem


def fake_tree(root: Path) -> Path:
    for file in {edit.file for edit in EDITS}:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        olds = "\n".join(edit.old for edit in EDITS if edit.file == file)
        path.write_text(f"project(x)\n{olds}\nset(LAST 1)\n", encoding="utf-8")
    return root


def files_of(root: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in root.rglob("*") if path.is_file()}


def test_standards_are_raised(tmp_path: Path) -> None:
    tree = fake_tree(tmp_path / "a folder with 'quotes'")
    apply_edits(tree)
    assert (tree / "CMakeLists.txt").read_text() == (
        "project(x)\nset(CMAKE_CXX_STANDARD 20)\nset(LAST 1)\n"
    )
    assert "CMAKE_CXX_STANDARD 20" in (tree / "horovod/torch/CMakeLists.txt").read_text()
    cuda = (tree / "horovod/common/ops/cuda/CMakeLists.txt").read_text()
    assert "CMAKE_CUDA_STANDARD 17" in cuda


@pytest.mark.parametrize("number", range(len(EDITS)))
def test_an_edit_that_no_longer_fits_is_named(tmp_path: Path, number: int) -> None:
    tree = fake_tree(tmp_path)
    edit = EDITS[number]
    text = (tree / edit.file).read_text()
    (tree / edit.file).write_text(text.replace(edit.old, "by another version"), encoding="utf-8")
    before = files_of(tree)
    with pytest.raises(SetupProblem) as caught:
        apply_edits(tree)
    message = str(caught.value)
    assert f"edit {number + 1} of {len(EDITS)}" in message
    assert edit.file in message and edit.why in message and "0 times" in message
    assert files_of(tree) == before


def test_text_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old old", encoding="utf-8")
    with pytest.raises(SetupProblem, match="2 times, not once"):
        apply_edits(tmp_path, (Edit("a.txt", "old", "new", "a reason"),))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupProblem, match=r"no file gone\.txt"):
        apply_edits(tmp_path, (Edit("gone.txt", "old", "new", "a reason"),))


def test_two_edits_of_one_file_both_hold(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two", encoding="utf-8")
    apply_edits(tmp_path, (Edit("a.txt", "one", "1", "x"), Edit("a.txt", "two", "2", "y")))
    assert (tmp_path / "a.txt").read_text() == "1 2"
