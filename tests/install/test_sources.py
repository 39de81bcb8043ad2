"""Horovod's archive is looked at before anything in it runs."""

import io
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from install.files import sha256
from install.pins import VERSIONS_FILE, Versions, read_versions
from install.problem import SetupProblem
from install.settings import Places
from install.sources import get_source

SETUP = """
from pathlib import Path
from setuptools import setup
Path({mark!r}).touch()
setup(name="horovod", version={version!r})
"""


@pytest.fixture
def versions() -> Versions:
    return read_versions(VERSIONS_FILE.read_text(encoding="utf-8"))


def an_archive(folder: Path, version: str, mark: Path) -> Path:
    """A source archive whose setup.py leaves a mark."""
    folder.mkdir()
    path = folder / f"horovod-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in (
            ("setup.py", SETUP.format(mark=str(mark), version=version)),
            ("PKG-INFO", f"Metadata-Version: 1.0\nName: horovod\nVersion: {version}\n"),
        ):
            content = text.encode()
            entry = tarfile.TarInfo(f"horovod-{version}/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("ours", [False, True])
def test_another_archive_is_not_run(tmp_path: Path, versions: Versions, ours: bool) -> None:
    mark = tmp_path / "setup.py ran"
    archive = an_archive(tmp_path / "archives", versions.horovod, mark)
    cache = tmp_path / "cache"
    cache.mkdir()
    places = Places(tmp_path, tmp_path / "venv", cache, cache / "uv", archive.parent)
    if ours:
        versions = replace(versions, horovod_sha256=sha256(archive))
        assert get_source(versions, places, Path(sys.executable)).is_file()
        assert mark.exists(), "this is what pip does with an archive that it trusts"
        return
    with pytest.raises(SetupProblem):
        get_source(versions, places, Path(sys.executable))
    assert not mark.exists()
    assert "DO NOT MATCH THE HASHES" in (cache / "logs" / "source.log").read_text()


def test_a_changed_archive_in_the_cache_is_removed(tmp_path: Path, versions: Versions) -> None:
    place = tmp_path / "sources" / f"horovod-{versions.horovod}.tar.gz"
    place.parent.mkdir()
    place.write_bytes(b"x")
    places = Places(tmp_path, tmp_path / "venv", tmp_path, tmp_path / "uv", None)
    with pytest.raises(SetupProblem, match="has the SHA-256"):
        get_source(versions, places, Path(sys.executable))
    assert not place.exists()
