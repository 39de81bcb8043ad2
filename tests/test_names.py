"""A class's name says by itself which class is meant: none stands twice in the package."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "megdet_hvd"


def names_of(source: str) -> list[str]:
    """Classes, and aliases of types, that a module defines."""
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            found.append(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        value = getattr(node, "value", None)
        if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "TypeVar":
            continue
        for target in targets:
            if isinstance(target, ast.Name) and target.id[:1].isupper():
                found += [] if target.id.isupper() and len(target.id) > 1 else [target.id]
    return found


def test_the_rule_finds_classes_and_aliases() -> None:
    source = "class A: ...\nB = tuple[int]\nC: Any = dict\n_D = 1\nSIZE = 2\nx = 3\n"
    assert names_of(source) == ["A", "B", "C"]


def test_no_class_or_alias_stands_twice() -> None:
    where = defaultdict(list)
    for file in sorted(PACKAGE.rglob("*.py")):
        for name in names_of(file.read_text(encoding="utf-8")):
            where[name].append(str(file.relative_to(PACKAGE)))
    assert len(where) > 200
    assert {name: files for name, files in where.items() if len(files) > 1} == {}
