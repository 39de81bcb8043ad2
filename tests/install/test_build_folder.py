"""Where Horovod is built, when a home folder's name would break make."""

from pathlib import Path

import pytest

from install.build_horovod import build_folder
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
