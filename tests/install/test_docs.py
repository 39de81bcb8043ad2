"""``make docs``: what it builds with is locked, and a warning about a page is an error."""

import re
from pathlib import Path

import pytest

from install import docs
from install.docs import build_docs
from install.lock import DOCS_LOCK, read_lock
from install.pins import VERSIONS_FILE, constraints, docs_requirements, read_versions
from install.problem import SetupProblem
from install.settings import Places

TEXT = VERSIONS_FILE.read_text(encoding="utf-8")


def test_the_lock_holds_all_that_is_installed_with_hashes_and_no_address() -> None:
    """Otherwise: make lock."""
    text = DOCS_LOCK.read_text(encoding="utf-8")
    assert "://" not in text and "@" not in text
    packages = read_lock(text)
    names = [package.requirement.partition(";")[0].strip() for package in packages]
    assert set(docs_requirements(TEXT)) <= set(names)
    assert all(package.hashes for package in packages)
    pins = dict(line.split("==") for line in constraints(read_versions(TEXT), None))
    shared = [name.split("==") for name in names if name.split("==")[0] in pins]
    assert len(shared) > 3 and all(pins[name] == version for name, version in shared)


def test_pages_change_nothing_of_the_environment_that_runs() -> None:
    """Its stamp holds a fingerprint of all of Versions: another Sphinx would make it anew."""
    other = re.sub(r'^sphinx = ".+?"', 'sphinx = "99"', TEXT, flags=re.MULTILINE)
    assert docs_requirements(other) != docs_requirements(TEXT)
    assert read_versions(other) == read_versions(TEXT)


@pytest.mark.parametrize("code", [0, 1])
def test_a_warning_is_an_error_each_time(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a fresh environment, Sphinx warns of a page once, and not when it is built again."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words\nexit {code}\n')
    python.chmod(0o755)
    monkeypatch.setattr(docs, "_environment", lambda places, environ: python)
    places = Places(tmp_path, tmp_path, tmp_path, tmp_path, None)
    if code:
        with pytest.raises(SetupProblem, match="each warning about a page"):
            build_docs(places, {})
    else:
        build_docs(places, {})
    words = (tmp_path / "words").read_text().split()
    assert {"--fail-on-warning", "--fresh-env"} <= set(words) and words[-2] == f"{tmp_path}/docs"
