"""The list of planted faults stays true: each can still be planted, and its tests are there."""

from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from tests.planted.__main__ import plant
from tests.planted.faults import FAULTS, Fault, Part

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.breaks)
def test_each_stands_once_and_names_its_tests(fault: Fault) -> None:
    text = (ROOT / "megdet_hvd" / fault.file).read_text(encoding="utf-8")
    assert text.count(fault.old) == 1 and "\n" not in fault.old + fault.new
    compile(text.replace(fault.old, fault.new), fault.file, "exec")
    assert all((ROOT / "tests" / name.partition("::")[0]).exists() for name in fault.tests.split())


def test_every_part_has_three_and_there_are_thirty() -> None:
    parts = Counter(fault.part for fault in FAULTS)
    assert set(parts) == set(get_args(Part)), "none is left out"
    assert min(parts.values()) >= 3 and len(FAULTS) >= 30, parts


def test_a_copy_differs_in_one_line(tmp_path: Path) -> None:
    plant(FAULTS[0], ROOT, tmp_path)
    file = Path("megdet_hvd") / FAULTS[0].file
    pairs = zip(
        (ROOT / file).read_text().splitlines(),
        (tmp_path / file).read_text().splitlines(),
        strict=True,
    )
    assert sum(a != b for a, b in pairs) == 1
    with pytest.raises(ValueError, match="stands 0 times"):
        plant(
            Fault("bn", "", FAULTS[0].file, "no such line", "", ""), ROOT, tmp_path / "another tree"
        )
