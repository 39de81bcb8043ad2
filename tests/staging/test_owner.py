"""What another user laid on the node's disk is not taken for ours."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from megdet_hvd.errors import UserError
from megdet_hvd.staging.owner import check_above, check_own, own_folders
from megdet_hvd.staging.stage import Staged, stage_data, stage_environment


def silent(text: str) -> None:
    """Nobody waits in these tests."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a").write_text("b")
    return folder


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, all that lies there is another user's."""
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)


def test_new_folders_are_ours_alone(tmp_path: Path, data: Path) -> None:
    before = os.umask(0)
    try:
        staged = stage_data(tmp_path / "local", data, silent)
    finally:
        os.umask(before)
    places = [staged.path, staged.path.parent, staged.path.parent.parent, tmp_path / "local"]
    assert [mode_of(place) for place in places] == [0o700] * 4
    assert stage_data(tmp_path / "local", data, silent).copied_bytes is None


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("fault", ["group", "everybody", "link", "file", "another's"])
def test_a_folder_that_is_not_ours_alone_is_refused(
    tmp_path: Path, data: Path, level: int, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole copy lies there; then one of the folders that lead to it is changed."""
    to = tmp_path / "local"
    place = stage_data(to, data, silent).path
    changed = (to / "megdet_hvd", to / "megdet_hvd" / "data", place)[level]
    said = {
        "group": "others may write to it",
        "everybody": "others may write to it",
        "link": "this is a link",
        "file": "something else",
        "another's": "belongs to user",
    }[fault]
    if fault in ("group", "everybody"):
        changed.chmod(0o770 if fault == "group" else 0o707)
    elif fault == "link":
        changed.rename(tmp_path / "elsewhere")
        changed.symlink_to(tmp_path / "elsewhere")
    elif fault == "file":
        changed.rename(tmp_path / "elsewhere")
        changed.touch()
    else:
        of_another(monkeypatch)
    with pytest.raises(UserError, match=said) as raised:
        stage_data(to, data, silent)
    assert "SITE_STAGING=/local/$USER" in str(raised.value)
    if fault != "another's":
        assert str(changed) in str(raised.value)


def test_an_environment_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "local" / "megdet_hvd").mkdir(parents=True, mode=0o777)
    (tmp_path / "local" / "megdet_hvd").chmod(0o777)
    archive = tmp_path / "x.tar"
    archive.write_bytes(b"x")
    with pytest.raises(UserError, match="others may write to it"):
        stage_environment(tmp_path / "local", archive, silent)


def test_what_was_open_to_read_is_closed(tmp_path: Path) -> None:
    """Below a folder that others may enter, a sub-folder may be open to them."""
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o755)
    check_own(place)
    assert mode_of(place) == 0o700


@pytest.mark.parametrize(
    ("mode", "refused"), [(0o1777, False), (0o777, True), (0o775, False), (0o757, True)]
)
def test_folders_above(tmp_path: Path, mode: int, refused: bool) -> None:
    above = tmp_path / "above"
    (above / "below").mkdir(parents=True)
    above.chmod(mode)
    check: Callable[[], object] = lambda: own_folders(above / "below", "ours")  # noqa: E731
    if refused:
        with pytest.raises(UserError, match=r"no\s+sticky"):
            check()
    else:
        check()


def test_links_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The site's own links and ours are followed, another user's is not."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    check_above(tmp_path / "link" / "..")
    check_above(tmp_path / "link")
    if os.geteuid() == 0:
        os.lchown(tmp_path / "link", 12345, 12345)
        with pytest.raises(UserError, match="link that user 12345 has laid"):
            check_above(tmp_path / "link")


def test_the_same_staged(tmp_path: Path, data: Path) -> None:
    first: Staged = stage_data(tmp_path / "local", data, silent)
    (first.path / "a").chmod(0o666)  # nobody gets so far
    assert stage_data(tmp_path / "local", data, silent).path == first.path
