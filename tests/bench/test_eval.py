import json
from functools import partial
from pathlib import Path

import pytest

from megdet_hvd.bench import eval as bench_eval
from megdet_hvd.bench.__main__ import main
from megdet_hvd.bench.turns import SideTimes, take_turns, turns_table
from megdet_hvd.errors import RUN_ERROR

WORDS = "eval --images 20 --detections 30 --turns 2"


def test_a_small_measurement_is_printed_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "eval.json"
    assert main([*WORDS.split(), f"--json={file}"]) == 0
    first, heading, ours, theirs, equal = capsys.readouterr().out.splitlines()
    assert "20 pictures × 30 detections" in first and "torch" in first
    assert heading.split() == ["clock", "s", "ratio", "processor", "s", "ratio"]
    assert ours.split()[0] == "ours" and theirs.split()[0] == "pycocotools"
    assert float(equal.split()[-1]) > 0.01, "some detections hit"
    record = json.loads(file.read_text())
    assert record["settings"] == {"images": 20, "detections": 30} and record["apart"] < 1e-12
    assert [len(side["clock_s"]) for side in record["sides"]] == [2, 2]


def test_other_numbers_end_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_eval, "pycocotools_numbers", lambda *_: [0.5] * 12)
    assert main(WORDS.split()) == RUN_ERROR
    assert "error: the sides' numbers differ" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["eval", "--turns", "0"])


def test_sides_take_turns_and_medians_are_compared() -> None:
    called: list[str] = []
    sides = take_turns({name: partial(called.append, name) for name in "ab"}, 3)
    assert "".join(called) == "ab" * 4 and [len(side.clock_s) for side in sides] == [3, 3]
    table = turns_table(
        [SideTimes("a", (2.0, 1.0, 9.0), (4.0, 4.0, 4.0)), SideTimes("bb", (6.0,) * 3, (8.0,) * 3)]
    )
    assert table[1].split() == ["a", "2.000", "1.00", "4.000", "1.00"]
    assert table[2].split() == ["bb", "6.000", "3.00", "8.000", "2.00"]
