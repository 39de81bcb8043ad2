"""Class names in every script: drawn with a font that has their letters, or by number."""

import logging
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from megdet_hvd.data import fonts
from megdet_hvd.report.boxes import DrawnBox, draw_boxes

OTHERS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fonts, "_told", set())
    fonts._file_for.cache_clear()
    yield
    fonts._file_for.cache_clear()


def drawn(text: str) -> np.ndarray:
    white = Image.new("RGB", (120, 40), "white")
    return np.asarray(draw_boxes(white, [DrawnBox((5, 20, 60, 38), (0, 0, 0), text)]))


def test_a_font_of_the_machine_draws_what_ours_can_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stix = str(OTHERS / "STIXGeneral.ttf")
    odd = chr(min(fonts._coverage(stix) - fonts._coverage(fonts._own()) - set(range(0xE000))))
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    monkeypatch.setattr(fonts, "_system_fonts", lambda: [str(broken), stix])
    assert fonts.shown_names([odd]) == [odd]
    assert fonts.font(12, f"{odd} 0.97").getname()[0] == "STIXGeneral"
    assert fonts.font(12, "Straße, кошка, γάτα").getname()[0] == "DejaVu Sans"
    with_it = drawn(odd)
    fonts._file_for.cache_clear()
    monkeypatch.setattr(fonts, "_system_fonts", lambda: [])
    assert (with_it != drawn(odd)).any(), "without it, it is an empty square"


def test_names_without_a_font_are_numbers_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("megdet_hvd"), "propagate", True)
    monkeypatch.setattr(fonts, "_system_fonts", lambda: [])
    names = ["cat", "猫", "кошка", "狗"]
    for _ in range(2):
        assert fonts.shown_names(names) == ["cat", "class 2", "кошка", "class 4"]
    assert len(caplog.records) == 1
    assert "2 class names (猫, 狗)" in caplog.text and "Noto" in caplog.text
