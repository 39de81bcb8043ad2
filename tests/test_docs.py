"""The pages say what the sources say, and lead to what is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.layers_page import layers_page

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "megdet_hvd"
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "tests").glob("*.md")]
    + [*(ROOT / "install").glob("*.md")]
)
ENDING = ("UserError", "RunError", "StorageError")
VALUE = "…"


def template(node: ast.expr) -> str:
    """A message as it stands in the source, with … for its values."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = (v.value if isinstance(v, ast.Constant) else VALUE for v in node.values)
        return "".join(map(str, parts))
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    return VALUE


@cache
def sources() -> list[tuple[Path, list[ast.AST]]]:
    """Every file of the package, and what it consists of."""
    files = sorted(PACKAGE.rglob("*.py"))
    return [(file, list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))) for file in files]


def texts() -> set[str]:
    """Every text of the package, docstrings left out."""
    found = set()
    for _, nodes in sources():
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.JoinedStr | ast.Constant) and id(node) not in docstrings:
                found.add(template(node))
    return found


def messages() -> list[tuple[str, str]]:
    """Where each error is raised that ends a run, and its text, where that stands there."""
    found = []
    for file, nodes in sources():
        for node in nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                text = template(node.args[0])
                if node.func.id in ENDING and re.search(r"\w", text):
                    found.append((f"{file.relative_to(ROOT)}:{node.lineno}", text))
    return found


def quotes(page: str) -> list[str]:
    """What the first cells of the tables of messages quote."""
    tables = page.partition("## Messages")[2]
    rows = re.findall(r"^\| (`.*?) \| ", tables, re.MULTILINE)
    return [quote for row in rows for quote in re.findall(r"`([^`]+)`", row)]


def letters(text: str) -> int:
    return sum(map(str.isalpha, text))


def says(quote: str, text: str) -> bool:
    """Whether ``text`` holds the words of the quote in their order; … is any value."""
    at = 0
    for piece in quote.split(VALUE):
        found = text.find(piece.strip(), at)
        if found < 0:
            return False
        at = found + len(piece.strip())
    return True


def test_quoted_messages_are_in_the_sources() -> None:
    known = texts()
    found = quotes(TROUBLESHOOTING.read_text(encoding="utf-8"))
    assert len(found) > 150
    missing = [quote for quote in found if not any(says(quote, text) for text in known)]
    assert missing == [], "docs/troubleshooting.md quotes what nothing says"


def test_every_message_that_ends_a_run_has_its_fix() -> None:
    # A quote of nothing but values and signs would stand for all of them.
    listed = [q for q in quotes(TROUBLESHOOTING.read_text(encoding="utf-8")) if letters(q) > 2]
    found = messages()
    assert len(found) > 200
    missing = [
        f"{where}: {text}" for where, text in found if not any(says(q, text) for q in listed)
    ]
    assert missing == [], "docs/troubleshooting.md must list them"


@pytest.mark.parametrize(
    ("quote", "text", "expected"),
    [
        ("…: no such file", "…: no such file; try another", True),
        ("…: no such file", "…: no file", False),
        ("does not divide", "global_batch=… does not divide over …", True),
        ("global_batch=… does not", "global_batch=… does not divide over …", True),
        ("over … does", "global_batch=… does not divide over …", False),
    ],
)
def test_the_comparison_itself(quote: str, text: str, expected: bool) -> None:
    assert says(quote, text) is expected


def test_the_page_of_layers_is_what_the_test_holds_imports_to() -> None:
    page = (ROOT / "docs" / "layers.md").read_text(encoding="utf-8")
    assert page == layers_page(), "write it anew: python -m tests.layers_page > docs/layers.md"
