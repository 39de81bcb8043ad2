"""The pages in docs/lab say what the records beside them hold, as the program reads them now."""

import re
import shutil
from pathlib import Path

import pytest

from megdet_hvd.lab import __main__ as lab
from megdet_hvd.lab import drawing

DOCS = Path(__file__).parents[2] / "docs" / "lab"


@pytest.mark.parametrize("scale", ["full", "gradual"])
def test_pages_are_what_the_records_say(
    scale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = sorted(DOCS.glob(f"{scale}-*.md"))
    if not pages:
        pytest.skip(f"docs/lab has no pages of {scale} yet")
    for records in DOCS.glob(f"{scale}-seed*"):
        shutil.copytree(records, tmp_path / records.name)
    monkeypatch.setattr(drawing, "save_picture", lambda *_: None)
    words = ["--report", "--out", str(tmp_path), *(["--gradual"] if scale == "gradual" else [])]
    assert lab.main(["all", *words]) == 0
    if scale == "full":
        assert lab.main(["tuning", *words, "--seeds", "100"]) == 0
    for page in pages:
        assert page.read_text(encoding="utf-8") == (tmp_path / page.name).read_text(
            encoding="utf-8"
        ), f"python -m megdet_hvd.lab all --report --out docs/lab writes {page.name} anew"


def answers(page: str) -> list[tuple[str, str]]:
    """Names of hypotheses, and what became of them, in the order of a page's tables."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^\| (H\d+) \|.*?\| \*\*([^*]+)\*\* \|", text, re.MULTILINE)


def test_the_discussion_quotes_the_answers() -> None:
    told = answers("results.md")
    assert len(told) >= 12
    found = answers("full-hypotheses.md")
    assert told[: len(found)] == found
    rest = told[len(found) :]
    assert not rest or rest == answers("gradual-hypotheses.md")
