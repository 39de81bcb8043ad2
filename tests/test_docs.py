"""The pages say what the sources say, and lead to what is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from megdet_hvd.config.keys import groups, valid_keys
from tests.layers_page import layers_page

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "megdet_hvd"
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
PAGES = sorted(
    page
    for folder in (".", "docs", "docs/lab", "tests", "install")
    for page in (ROOT / folder).glob("*.md")
)
"""All Markdown of the project."""
ENDING = ("UserError", "RunError", "StorageError")
VALUE = "…"
GROUPS = {group.path for group in groups() if group.path and "." not in group.path}


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
    assert not missing, "docs/troubleshooting.md quotes what nothing says:\n" + "\n".join(missing)


def test_every_message_that_ends_a_run_has_its_fix() -> None:
    # A quote of nothing but values and signs would stand for all of them.
    listed = [q for q in quotes(TROUBLESHOOTING.read_text(encoding="utf-8")) if letters(q) > 2]
    found = messages()
    assert len(found) > 200
    missing = [
        f"{where}: {text}" for where, text in found if not any(says(q, text) for q in listed)
    ]
    assert not missing, "docs/troubleshooting.md must list them:\n" + "\n".join(missing)


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


def slug(heading: str) -> str:
    """The anchor of a heading, as code hosts and MyST make it."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def prose(page: Path) -> str:
    """A page without its blocks and spans of code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.M)}


def broken_links(page: Path) -> list[str]:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)|^\[\w[\w .]*\]: (\S+)", prose(page), re.M):
        link = "".join(target)
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        file = page.parent / path if path else page
        if not file.exists():
            broken.append(f"{page.name}: {link} is not there")
        elif anchor and anchor not in anchors(file):
            broken.append(f"{page.name}: {link} has no such heading: {sorted(anchors(file))}")
    return broken


def test_links_lead_to_files_and_headings() -> None:
    """In plain Markdown, too: make docs looks at the site's pages, and at none beside docs/."""
    assert len(PAGES) > 20
    assert [link for page in PAGES for link in broken_links(page)] == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`: c, §3.3\n\n[x](page.md#a-b-c-33) [y](page.md#z) [z](none.md)\n\n"
        "```\n[in code](none.md)\n```\n"
    )
    assert [link.split(" ")[1] for link in broken_links(page)] == ["page.md#z", "none.md"]


def test_the_tree_of_sources_names_what_is_there() -> None:
    """docs/code.md: names stand in front of two blanks, what is indented lies inside."""
    block = (ROOT / "docs" / "code.md").read_text(encoding="utf-8").split("```")[1]
    inside: list[tuple[int, Path]] = []
    count = 0
    for line in filter(str.strip, block.splitlines()):
        depth = len(line) - len(line.lstrip())
        if depth > 12:
            continue  # the line above goes on
        inside = [(at, folder) for at, folder in inside if at < depth]
        parent = inside[-1][1] if inside else ROOT
        for name in line.strip().partition("  ")[0].split(" "):
            if name.endswith(("/", ".py")):
                assert (parent / name).exists(), f"docs/code.md: {parent / name}"
                inside.append((depth, parent / name))
                count += 1
    assert count > 50


def test_versions_are_those_of_the_package() -> None:
    version = re.findall(r'__version__ = "(.+)"', (PACKAGE / "__init__.py").read_text())[0]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_readme_is_short() -> None:
    """An overview: what is longer goes to docs/."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_page_of_tests_names_every_folder_of_them() -> None:
    page = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    rows = " ".join(re.findall(r"^\| (`.*?) \|", page, re.MULTILINE))
    named = set(re.findall(r"`([\w.]+)`", rows))
    folders = {file.parent.name for file in (ROOT / "tests").glob("*/test_*.py")}
    assert len(folders) > 15 and folders <= named, folders - named


def code(page: Path) -> str:
    """The blocks and spans of code of a page."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", page.read_text(encoding="utf-8"), re.S))


def everywhere(pattern: str) -> set[str]:
    """What the pattern's group finds in the code of all pages."""
    return {found for page in PAGES for found in re.findall(pattern, code(page))}


def test_programs_settings_and_targets_that_pages_name_exist() -> None:
    programs = everywhere(r"python -m ((?:megdet_hvd|tests|install)(?:\.\w+)+)")
    assert len(programs) > 12
    for name in programs:
        place = ROOT.joinpath(*name.split("."))
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), name
    settings = everywhere(rf"(?<![\w.])((?:{'|'.join(sorted(GROUPS))})\.[a-z_.]+)=")
    assert len(settings) > 60
    assert settings <= set(valid_keys()), settings - set(valid_keys())
    targets = everywhere(r"\bmake ([a-z][a-z-]+)\b")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert len(targets) > 8
    assert targets <= set(re.findall(r"^([a-z-]+):", makefile, re.M)), targets


def test_files_that_pages_name_exist() -> None:
    parts = "|".join(sorted(file.name for file in PACKAGE.iterdir() if file.is_dir()))
    inside = everywhere(rf"(?<![\w/.])((?:{parts})/\w+\.py)")
    beside = everywhere(
        r"(?<![\w/.])((?:configs|slurm|docs|tests|install|megdet_hvd)/[\w./]+\.(?:yaml|sbatch|py|md|toml))"
    )
    assert len(inside) > 6 and len(beside) > 15
    missing = [name for name in inside if not (PACKAGE / name).is_file()]
    missing += [name for name in beside if not (ROOT / name).is_file()]
    assert missing == []


def first_sentence(name: str) -> str:
    """The first line of a class's or function's docstring, by its dotted name."""
    module, _, leaf = name.rpartition(".")
    place = ROOT.joinpath(*module.split("."))
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    # From below: what is overloaded has its docstring in the last one.
    for node in reversed(ast.parse(file.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == leaf:
            line = (ast.get_docstring(node) or "").split("\n")[0]
            return re.sub(r":\w+:`([^`]+)`", r"`\1`", line).replace("``", "`")
        if isinstance(node, ast.ImportFrom) and leaf in [alias.name for alias in node.names]:
            return first_sentence(f"{node.module}.{leaf}")
    raise AssertionError(f"{name} is not in {file}")


def test_the_api_page_says_what_docstrings_begin_with() -> None:
    """For who reads it as plain Markdown; the site shows the whole docstrings."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```\{eval-rst\}\n\.\. autoapi\w+:: (\S+)$", page, re.MULTILINE)
    listed = re.findall(r"^\| `([\w.]+)` \| (.+) \|$", page, re.MULTILINE)
    assert len(shown) > 12
    assert listed == [(name, first_sentence(name)) for name in shown]
