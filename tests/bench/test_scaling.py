from pathlib import Path

import pytest

from megdet_hvd.bench.__main__ import main
from megdet_hvd.bench.scaling import SPLIT, table
from tests.engine.small import small_settings


def test_efficiency_is_that_of_the_first_row() -> None:
    split = {key: 0.1 for key in SPLIT}
    medians = {1: {"step_s": 0.5, **split}, 4: {"step_s": 0.8, **split}}
    lines = [line.split() for line in table(medians, 2)[1:]]
    assert lines[0][:4] == ["1", "0.500", "4.00", "1.00"]
    assert lines[1][:4] == ["4", "0.800", "10.00", "0.62"]
    assert lines[0][4:] == ["0.1000"] * 5


@pytest.mark.tail  # two launches; the split: tests/engine/step
def test_the_parts_are_those_of_a_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [
        word
        for word in small_settings(tmp_path)
        if not word.startswith(("global_batch", "output", "learning.warmup"))
    ]
    words = ["scaling", "--processes", "1", "2", "--images", "2", "--steps", "3", "--turns", "1"]
    assert main([*words, *settings]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["1", "2"]
    for row in rows:
        step, parts = float(row[1]), [float(part) for part in row[4:]]
        assert 0.5 * step < sum(parts) < 1.5 * step  # medians of each, so not exactly
    assert float(rows[0][5]) == 0.0 and float(rows[1][5]) > 0.0, "two processes send BN messages"
