import pytest

from megdet_hvd.bench.__main__ import main
from megdet_hvd.bench.memory import Row, table


def test_a_small_measurement_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    words = "memory --backbone resnet18 --size 64 --images 1 --repeats 1 --device cpu --held 1"
    assert main(words.split()) == 0
    first, heading, *rows = capsys.readouterr().out.splitlines()
    assert "cores" in first and "torch" in first and "1 × 64×64 pixels" in first
    assert heading.split()[:3] == ["recomputed", "peak", "MiB"]
    peaks = {row.split()[0]: float(row.split()[1]) for row in rows[:3]}
    assert list(peaks) == ["none", "blocks", "stages"]
    assert 0 < peaks["blocks"] < peaks["none"] and 0 < peaks["stages"] < peaks["none"]
    assert rows[3] == "alive at the peak, none:"


def test_everything_is_compared_with_the_first_row() -> None:
    lines = table([Row("none", 2**30, 2.0, 4.0), Row("blocks", 2**28, 2.5, 5.2)])
    assert lines[1].split() == ["none", "1024.0", "1.00", "2.000", "1.00", "4.000", "1.00"]
    assert lines[2].split() == ["blocks", "256.0", "0.25", "2.500", "1.25", "5.200", "1.30"]


def test_an_unknown_measurement_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memry"]) == 2
    told = capsys.readouterr().err
    assert "no measurement 'memry'" in told and "memory" in told.splitlines()[-1]
    assert main(["--help"]) == 0
    with pytest.raises(SystemExit):
        main(["memory", "--size", "100"])
