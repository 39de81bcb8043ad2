import json
import subprocess
from pathlib import Path

import pytest

from megdet_hvd.bench import index as bench_index
from megdet_hvd.bench.__main__ import main
from megdet_hvd.bench.index import COLD, PEER, WARM, Opening, at_once_line, memory_table
from megdet_hvd.data import stamps
from megdet_hvd.errors import RUN_ERROR, RunError


def test_a_small_measurement_is_printed_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamps, "SETTLED_S", -1.0)
    file = tmp_path / "index.json"
    words = f"index --images 60 --boxes 500 --turns 1 --processes 2 --json={file}"
    assert main(words.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "60 pictures, 500 boxes" in lines[0] and "torch" in lines[0]
    assert lines[1].split() == ["clock", "s", "ratio", "processor", "s", "ratio"]
    assert [line.partition("  ")[0] for line in lines[2:5]] == [WARM, COLD, PEER]
    assert lines[6].split() == ["peak", "MiB", "private", "MiB", "when", "used"]
    assert [line.partition(":")[0] for line in lines[-3:]] == [WARM, COLD, PEER]
    record = json.loads(file.read_text())
    assert record["settings"] == {"images": 60, "boxes": 500, "turns": 1, "processes": 2}
    assert set(record["single"]) == set(record["together"]) == {WARM, COLD, PEER}
    openings = [one for some in record["single"].values() for one in some]
    openings += [one for some in record["together"].values() for one in some]
    assert len(openings) == 3 + 6 and len({one["content"] for one in openings}) == 1
    assert all(one["clock_s"] > 0 and 20 < one["peak_mib"] < 300 for one in openings)


def opening(clock_s: float, content: str = "same", private_mib: float = 1.0) -> Opening:
    return Opening(clock_s, 2 * clock_s, 100.0, private_mib, 2 * private_mib, content)


def test_tables() -> None:
    some = [opening(1.0), opening(3.0, private_mib=5.0), opening(2.0)]
    assert memory_table({WARM: some})[1].split() == [*WARM.split(), "100", "1.0", "2.0"]
    assert at_once_line(WARM, some) == (
        "ours, kept: all have it after 3.000 s, 12.000 s of processors; private 5.0 MiB at most, "
        "when used 10.0, in all 14.0; highest peak 100 MiB"
    )


def test_other_boxes_end_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stamps, "SETTLED_S", -1.0)
    monkeypatch.setattr(
        bench_index, "open_at_once", lambda side, *_: [opening(1.0, str(side == PEER))]
    )
    assert main(["index", "--images", "2", "--boxes", "3", "--turns", "1"]) == RUN_ERROR
    assert "error: the sides have read other boxes" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["index", "--turns", "0"])


def test_a_side_that_fails_ends_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"failed \(exit code 1\)"):
        bench_index.open_at_once(PEER, 2, tmp_path)
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(tmp_path) not in found
