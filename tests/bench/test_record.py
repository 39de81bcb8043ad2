"""Options of measurements that are refused before anything is measured."""

import json
from pathlib import Path

import pytest

from megdet_hvd.bench.__main__ import MEASUREMENTS, main
from megdet_hvd.bench.record import write_record
from megdet_hvd.errors import UserError

WITH_RECORDS = sorted(MEASUREMENTS.keys() - {"bn", "memory", "profile"})


@pytest.mark.parametrize("name", WITH_RECORDS)
@pytest.mark.parametrize("place", ["away/record.json", "."])
def test_a_record_that_can_not_be_written_ends_it_at_once(
    tmp_path: Path, name: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--json", str(tmp_path / place)])
    assert ended.value.code == 2
    assert "give a file in a folder that is there" in capsys.readouterr().err


def test_a_disk_that_fills_up_meanwhile_is_an_error_in_words(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    write_record(file, "a machine", {"turns": 3}, rows=[1])
    assert json.loads(file.read_text(encoding="utf-8")) == {
        "machine": "a machine",
        "settings": {"turns": 3},
        "rows": [1],
    }
    with pytest.raises(UserError, match="full can't be written"):
        write_record(Path("/dev/full"), "a machine", {})


def test_one_number_of_ranks_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "megdet_hvd.bench.start_ranks._measure", lambda options: asked.append(options.ranks)
    )
    assert main(["start_ranks", "--ranks", "8"]) == 0
    assert asked == [[8]]
    with pytest.raises(SystemExit):
        main(["start_ranks", "--ranks", "1"])
