"""Where Horovod is built, when a home folder's name would break make."""

import os
from pathlib import Path

import pytest

from install.build_horovod import build_folder
from install.files import own_folder
from install.problem import SetupProblem


@pytest.mark.parametrize("cache", ["/home/u/.cache/megdet_hvd", "/scratch/a.b@c-1_2/x"])
def test_a_plain_cache_is_built_in(cache: str) -> None:
    assert build_folder(Path(cache), Path("/tmp"), 7) == Path(cache) / "build"


@pytest.mark.parametrize(
    "cache", ["/home/my name/c", "/home/it's/c", "/home/$USER/c", "/home/ü/c", "/home/c++/c"]
)
def test_another_is_built_for_in_the_scratch_folder(cache: str) -> None:
    assert build_folder(Path(cache), Path("/scratch"), 7) == Path("/scratch/megdet_hvd-build-7")
    with pytest.raises(SetupProblem, match="TMPDIR"):
        build_folder(Path(cache), Path("/tmp/a b"), 7)


def test_a_folder_that_another_user_laid_is_not_built_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name can be known beforehand."""
    place = tmp_path / "megdet_hvd-build-7"
    own_folder(place)
    own_folder(place)
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o770)
    with pytest.raises(SetupProblem, match=r"written to by others \(mode 0770\)"):
        own_folder(place)
    place.chmod(0o700)
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(SetupProblem, match=f"belongs to user {uid}"):
        own_folder(place)
    (tmp_path / "link").symlink_to(place)
    with pytest.raises(SetupProblem, match="is no folder"):
        own_folder(tmp_path / "link")
