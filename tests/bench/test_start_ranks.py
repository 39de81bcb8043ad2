"""The bench of many ranks' start: what each process tells, and how it is summed up."""

import json
from pathlib import Path
from typing import Any

import pytest

from megdet_hvd.bench.__main__ import main
from megdet_hvd.bench.start_ranks import summed_up, table


def told(there: float, scale: float) -> dict[str, Any]:
    """A rank whose phases take 1, 2, 3 and 4 seconds times ``scale``."""
    marks = {"imports": 1.0, "mpi": 3.0, "meeting": 6.0, "watchdog": 10.0}
    return {
        "there": there,
        "processor_s": {phase: scale * at for phase, at in marks.items()},
        "told": [2, 100 * scale],
        "heard": [8, 400 * scale],
        "lines": 3 * scale,
        "rss": 0,
        "uss": 1e6 * scale,
        "watched": True,
    }


def test_a_start_is_rank_0_and_the_median_of_the_others() -> None:
    found = summed_up([told(12.0, 9.0), told(15.0, 1.0), told(13.0, 2.0), told(11.0, 3.0)], 10.0)
    assert found["clock_s"] == 5.0
    assert found["processor_s"]["meeting"] == {"rank_0": 27.0, "others": 6.0}
    assert found["processor_s"]["watchdog"] == {"rank_0": 36.0, "others": 8.0}
    assert found["heard_bytes"] == {"rank_0": 3600.0, "others": 800.0}
    line = table({4: [found, found]})[1].split()
    assert line[:2] == ["4", "5.0"] and line[2:5] == ["27000.0", ":", "6000.0"]


def test_what_a_cluster_wrote_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "found.json"
    records = [told(15.0, 9.0) | {"created": 12.5}, told(14.0, 2.0) | {"created": 11.0}]
    file.write_text(json.dumps(records), encoding="utf-8")
    assert main(["start_ranks", "--read", str(file), str(file)]) == 0
    _, line = capsys.readouterr().out.splitlines()
    assert line.split()[:5] == ["2", "4.0", "27000.0", ":", "6000.0"]
    for text in ("", "[]", "[{}]", "7", '{"starts": []}'):
        file.write_text(text, encoding="utf-8")
        assert main(["start_ranks", "--read", str(file)]) == 2
        assert f"--read {file}: must be what" in capsys.readouterr().err


@pytest.mark.tail  # two launches
def test_what_rank_0_hears_grows_with_the_ranks_and_what_each_tells_does_not(
    tmp_path: Path,
) -> None:
    file = tmp_path / "starts.json"
    words = ["start_ranks", "--ranks", "2", "6", "--per-machine", "2", "--json", str(file)]
    assert main(words) == 0
    starts = json.loads(file.read_text(encoding="utf-8"))["starts"]
    two, six = starts["2"][0], starts["6"][0]
    assert two["watched"] and six["watched"]
    for who in ("rank_0", "others"):
        assert six["told_bytes"][who] == pytest.approx(two["told_bytes"][who], rel=0.1)
        assert 0 < two["uss_bytes"][who] < 100e6, "without torch"
    # Rank 0 hears all that each has told; the others who they all are, and what follows.
    heard = {ranks: one["heard_bytes"] for ranks, one in ((2, two), (6, six))}
    assert heard[6]["rank_0"] == pytest.approx(3 * heard[2]["rank_0"], rel=0.1)
    assert heard[6]["others"] - heard[2]["others"] < (heard[6]["rank_0"] - heard[2]["rank_0"]) / 4
    # Rank 0 greets each of the others, with two lines; they answer with two, however many.
    assert six["watchdog_lines"]["rank_0"] == 5 * two["watchdog_lines"]["rank_0"]
    assert six["watchdog_lines"]["others"] == two["watchdog_lines"]["others"]
