"""The examples of docs/extending.md, as files."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
_BLOCK = re.compile(r"^```(?:python|yaml)\n# ([\w.]+)\n(.*?)^```$", re.M | re.S)


def examples(text: str) -> dict[str, str]:
    """Content by file name, which is the first line of a block."""
    found = _BLOCK.findall(text)
    assert len(found) == len(dict(found)), "a file stands twice"
    return dict(found)


def write_examples(folder: Path) -> dict[str, str]:
    """Write them into a folder, as a reader of the page would; returns them."""
    found = examples(PAGE.read_text(encoding="utf-8"))
    for name, content in found.items():
        (folder / name).write_text(content, encoding="utf-8")
    return found
