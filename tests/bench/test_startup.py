from pathlib import Path

import pytest

from megdet_hvd.bench.__main__ import main
from megdet_hvd.bench.startup import start_once
from megdet_hvd.errors import RunError
from tests.engine.small import small_settings


def settings(folder: Path) -> list[str]:
    own = ("global_batch", "output", "learning.warmup")
    return [word for word in small_settings(folder) if not word.startswith(own)]


@pytest.mark.tail  # eight launches
def test_both_sides_are_timed_to_the_same_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["startup", "--processes", "1", "2", "--turns", "1"]
    assert main([*words, *settings(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    ours = [float(line.split()[1]) for line in lines if line.startswith("ours ") and "1.00" in line]
    bare = [float(line.split()[2]) for line in lines if line.startswith("bare script")]
    assert len(ours) == len(bare) == 2
    assert all(mine > 0.5 * theirs > 0 for mine, theirs in zip(ours, bare, strict=True))


def test_a_launch_that_fails_is_told_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"0 of 1 ranks came.*(?s:.)*no_such_setting"):
        start_once("ours", 1, ["no_such_setting=1"], tmp_path)
